"""Work that waits in greenlets, which are kept for the next work."""

import asyncio
import gc
import weakref

import pytest
from greenlet import getcurrent

from jobqueue.cluster.outcome import Outcome
from jobqueue.cluster.outcome_future import OutcomeFuture
from jobqueue.cluster.waiting import inside, run, wait, wait_for_outcome


class Thing:
    pass


def test_work_that_does_not_wait_is_done_at_once_and_its_greenlet_does_the_next():
    first = run(getcurrent)
    assert run(getcurrent) is first
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)
    assert run(getcurrent) is first
    assert run(inside)
    assert not inside()


async def test_work_that_waits_keeps_its_greenlet_until_it_is_done():
    answers = [asyncio.Future() for _ in range(3)]
    results = [run(lambda answer=answer: (wait(answer), getcurrent())) for answer in answers]
    assert run(lambda: 1) == 1
    for number, answer in reversed(list(enumerate(answers))):
        answer.set_result(number)
    found = [await result for result in results]
    assert [value for value, _ in found] == [0, 1, 2]
    assert len({worker for _, worker in found}) == 3


async def test_work_inside_of_work_waits_too_and_errors_go_to_whoever_asked():
    answer, other = asyncio.Future(), asyncio.Future()

    def work():
        inner = run(lambda: wait(other))
        with pytest.raises(KeyError):
            run(lambda: {}["x"])
        return wait(inner) + wait(answer)

    result = run(work)
    other.set_result(1)
    await asyncio.sleep(0)
    answer.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await result
    cancelled = run(lambda: wait(asyncio.Future()))
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert run(lambda: 2) == 2


def test_a_kept_greenlet_keeps_nothing_of_its_last_work():
    thing = Thing()
    left = weakref.ref(thing)
    assert run(lambda thing=thing: thing) is thing

    def fails(thing=thing):
        raise ValueError(thing)

    with pytest.raises(ValueError, match="Thing"):
        run(fails)
    del thing, fails
    gc.collect()
    assert left() is None


class Refused(Exception):
    """An error that can be referred to weakly."""


@pytest.mark.parametrize("as_future", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_call_that_failed_leaves_nothing_for_the_garbage_collector(as_future, cancelled):
    outcome, thing = Outcome(), Thing()

    def work(outcome=outcome, thing=thing):
        return wait_for_outcome(outcome), thing

    future = OutcomeFuture(outcome, lambda thing=thing: thing) if as_future else run(work)
    error = asyncio.CancelledError() if cancelled else Refused()
    left = [weakref.ref(thing)] if cancelled else [weakref.ref(thing), weakref.ref(error)]
    gc.collect()
    gc.disable()
    try:
        outcome.end(None, error)
        assert future.cancelled() if cancelled else isinstance(future.exception(), Refused)
        del outcome, thing, work, future, error
        assert [one() for one in left] == [None] * len(left)
    finally:
        gc.enable()


async def test_who_waits_for_an_outcome_cannot_fail_who_ends_it(logged):
    outcomes = [Outcome() for _ in range(3)]
    outcomes[0].when_done(lambda: 1 // 0)

    def work():
        wait_for_outcome(outcomes[1])
        raise StopIteration

    bad, good = run(work), run(lambda: wait_for_outcome(outcomes[2]))
    for outcome in outcomes:  # as the answers that came together
        outcome.end(7, None)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await bad
    assert await good == 7
    assert logged.pop().exc_info[0] is ZeroDivisionError
