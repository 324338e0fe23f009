"""Two calls one after the other, as one Future: as an engine answers that must first write to a disk."""

import asyncio

import pytest

from jobqueue.errors import LeaseLost, Stopping
from jobqueue.web.futures import then


def futures(count):
    return [asyncio.get_running_loop().create_future() for _ in range(count)]


async def passes():
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_is_there_is_answered_at_once():
    (second,) = futures(1)
    assert then(1, lambda n: n + 1) == 2
    assert then(1, lambda _: second) is second


async def test_one_comes_after_the_other():
    first, second = futures(2)
    both = then(first, lambda n: second if n == 1 else None)
    first.set_result(1)
    await passes()
    assert not both.done()
    second.set_result(2)
    assert await both == 2
    (first,) = futures(1)
    both = then(first, lambda n: n + 1)
    first.set_result(1)
    assert await both == 2


async def test_a_refusal_of_either_is_that_of_both():
    first, second = futures(2)
    both = then(first, lambda _: pytest.fail("it was refused"))
    first.set_exception(LeaseLost("lost"))
    with pytest.raises(LeaseLost):
        await both
    (first,) = futures(1)
    both = then(first, lambda _: second)
    first.set_result(1)
    second.set_exception(Stopping("it stops"))
    with pytest.raises(Stopping):
        await both

    def refuse(_):
        raise Stopping("it stops")

    (first,) = futures(1)
    both = then(first, refuse)
    first.set_result(1)
    with pytest.raises(Stopping):
        await both


async def test_cancelling_it_cancels_what_is_under_way():
    first, second = futures(2)
    both = then(first, lambda _: pytest.fail("it was cancelled"))
    assert both.cancel()
    await passes()
    assert first.cancelled()
    assert both.cancelled()
    (first,) = futures(1)
    both = then(first, lambda _: second)
    first.set_result(1)
    await passes()
    assert both.cancel()
    await passes()
    assert (second.cancelled(), both.cancelled()) == (True, True)
    assert not both.cancel()


async def test_who_leaves_between_the_two_begins_no_second_call():
    (first,) = futures(1)
    both = then(first, lambda _: pytest.fail("nobody waits for it"))
    first.set_result(1)
    assert not both.cancel()  # the first one counts
    await passes()
    assert both.cancelled()


async def test_once_the_job_is_handed_over_a_cancel_comes_too_late():
    """Between the engine's answer and this one's a client may leave: the job is to be given back, not lost."""
    first, second = futures(2)
    both = then(first, lambda _: second)
    first.set_result(1)
    await passes()
    second.set_result(["a job"])
    assert not both.cancel()
    assert await both == ["a job"]
