"""The comparison of counted instructions with recorded ones, which CI makes."""

import pytest

from tests.bench import instructions, recorded

LIFECYCLES = {"enqueue, dequeue": ("enqueue", "dequeue")}
RECORDED = {"enqueue": 30_000, "dequeue": 34_000, "reference": 38_000_000}


def differences(**factors):
    counted = {name: number * factors.get(name, 1) for name, number in RECORDED.items()}
    return recorded.differences(counted, RECORDED, LIFECYCLES, "reference")


def test_what_was_recorded_passes():
    assert differences() == []


def test_noise_passes():
    assert differences(enqueue=1.02, dequeue=0.99) == []


@pytest.mark.parametrize("factor", [1.05, 0.95])
def test_a_lifecycle_that_differs_by_five_percent_fails(factor):
    (said,) = differences(enqueue=factor, dequeue=factor)
    assert said.startswith("enqueue, dequeue: ")
    assert f"{factor - 1:+.1%}" in said


def test_a_request_alone_may_differ_by_more():
    assert differences(enqueue=1.05) == []
    assert any(said.startswith("enqueue: ") for said in differences(enqueue=1.07))


def test_another_build_of_python_is_compared_by_the_reference():
    assert differences(enqueue=0.88, dequeue=0.88, reference=0.86) == []
    assert differences(enqueue=0.93, dequeue=0.93, reference=0.86) != []
    assert differences(enqueue=0.83, dequeue=0.83, reference=0.86) != []


def test_a_kind_of_request_that_was_never_recorded_fails():
    counted = {**RECORDED, "heartbeat": 20_000}
    assert recorded.differences(counted, RECORDED, LIFECYCLES, "reference") == [
        "heartbeat: no figures are recorded of heartbeat"
    ]


def test_all_kinds_of_requests_are_recorded():
    figures = recorded.load("3.11")
    assert figures is not None
    assert set(figures) == {*(kind.name for kind in instructions.KINDS), instructions.REFERENCE}
