"""`then`: two calls in sequence as one Future, for an engine that answers later."""

import asyncio

import pytest

from jobqueue.errors import LeaseLost, Stopping
from jobqueue.web.futures import then


def futures(count):
    return [asyncio.get_running_loop().create_future() for _ in range(count)]


async def passes():
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_result_that_is_there_is_answered_at_once():
    (second,) = futures(1)
    assert then(1, lambda n: n + 1) == 2
    assert then(1, lambda _: second) is second


async def test_the_second_call_begins_after_the_first():
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


async def test_a_second_call_that_takes_time_only_after_it_has_read_is_waited_for():
    first, read, last = futures(3)
    both = then(first, lambda _: read)
    first.set_result(1)
    await passes()
    read.set_result(last)
    await passes()
    assert not both.done()
    assert both.cancel()
    assert last.cancelled()
    await passes()
    assert both.cancelled()


async def test_a_refusal_of_either_call_is_the_result():
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


async def test_a_cancel_cancels_the_call_that_is_under_way():
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


async def test_a_cancel_between_the_calls_prevents_the_second():
    (first,) = futures(1)
    both = then(first, lambda _: pytest.fail("nobody waits for it"))
    first.set_result(1)
    assert not both.cancel()  # the first one counts
    await passes()
    assert both.cancelled()


async def test_a_cancel_after_the_delivery_comes_too_late():
    """A client may leave between the two answers. The job must be given back then, not lost."""
    first, second = futures(2)
    both = then(first, lambda _: second)
    first.set_result(1)
    await passes()
    second.set_result(["a job"])
    assert not both.cancel()
    assert await both == ["a job"]
