"""After a pause of the loop, ticks wait until what arrived meanwhile has been read; but not for ever."""

import pytest
from serving import until

from jobqueue import MemoryEngine, Settings
from jobqueue.clock import read_both
from jobqueue.engine.catch_up import LEAST, LONGEST, MOST, QUIET, CatchUp
from jobqueue.model import DequeueRequest, NewJob


def passes(catch_up, now, step=0, most=10_000):
    """Returns how many passes due work waits from `now` on, with `step` milliseconds between them."""
    for number in range(most):
        if not catch_up.must_wait(now + number * step):
            return number
    return most


def test_ticks_that_are_on_time_wait_for_nothing():
    catch_up = CatchUp(200, 1_000)
    catch_up.arriving = lambda: True
    assert [catch_up.must_wait(1_000 + 100 * n) for n in range(5)] == [False] * 5
    assert not catch_up.must_wait(1_400 + 200)


def test_after_a_pause_ticks_wait_for_some_passes_without_arrivals():
    catch_up = CatchUp(200, 1_000)
    assert passes(catch_up, 1_201) == QUIET
    assert not catch_up.must_wait(1_301)


def test_each_arrival_begins_the_quiet_passes_again():
    catch_up = CatchUp(200, 1_000)
    arrivals = iter([True] * 3 + [False, True])
    catch_up.arriving = lambda: next(arrivals, False)
    assert passes(catch_up, 5_000) == 5 + QUIET


def test_ticks_wait_for_a_second_at_most_however_much_arrives():
    catch_up = CatchUp(200, 1_000)
    catch_up.arriving = lambda: True
    assert passes(catch_up, 60_000, step=10) == LONGEST // 10


def test_after_a_short_pause_ticks_wait_no_longer_than_it_took():
    catch_up = CatchUp(200, 1_000)
    catch_up.arriving = lambda: True
    assert passes(catch_up, 1_300, step=5) == 60


def test_slow_passes_are_not_too_few():
    catch_up = CatchUp(2_000, 1_000)
    catch_up.arriving = lambda: True
    assert passes(catch_up, 5_000, step=1_500) == LEAST


def test_a_second_pause_begins_the_wait_again():
    catch_up = CatchUp(200, 1_000)
    assert passes(catch_up, 5_000, most=QUIET - 1) == QUIET - 1
    assert passes(catch_up, 9_000) == QUIET


def test_a_loop_whose_passes_are_all_as_long_as_a_pause_waits_no_longer_for_ever():
    catch_up = CatchUp(200, 1_000)
    catch_up.arriving = lambda: True
    restarts = -(-(MOST - LONGEST) // 300)
    waited = passes(catch_up, 5_000, step=300)
    assert waited == restarts + LEAST
    now = 5_000 + waited * 300
    assert [catch_up.must_wait(now + 300 * number) for number in range(1, 50)] == [False] * 49
    now += 49 * 300
    assert not catch_up.must_wait(now + 100)
    assert passes(catch_up, now + 10_100, step=10) == LONGEST // 10


def test_five_long_pauses_in_a_row_begin_the_wait_again_each_time():
    catch_up = CatchUp(200, 1_000)
    for pause in range(1, 6):
        assert passes(catch_up, pause * 600_000, most=QUIET - 1) == QUIET - 1


class RunningClock:
    """A clock that moves by hand, and whose engine ticks by its timer."""

    manual = False

    def __init__(self):
        self.now = 1_000_000

    def monotonic(self):
        return self.now

    def wall(self):
        return 1_800_000_000_000 + self.now


async def test_a_lease_that_ended_in_a_pause_ends_when_nothing_arrives_any_more():
    clock = RunningClock()
    engine = MemoryEngine(Settings(tick="10ms", lease="2s"), clock)
    asked = []
    engine.watch_arrivals(lambda: bool(asked.append(engine.stats().jobs["in_progress"]) or len(asked) < 50))
    engine.enqueue(NewJob("t"))
    assert engine.dequeue(DequeueRequest(("default",)))
    clock.now += 60_000
    await until(lambda: engine.stats().jobs["queued"] == 1)
    assert asked == [1] * (49 + QUIET)
    engine.close()


@pytest.mark.parametrize("pause", [11, 60_000])
def test_a_pause_between_two_readings_does_not_look_like_a_step_of_the_clock(pause):
    clock = RunningClock()
    pauses = iter([pause, pause])

    class Paused:
        manual = False

        def monotonic(self):
            return clock.monotonic()

        def wall(self):
            clock.now += next(pauses, 0)
            return clock.wall()

    monotonic, wall = read_both(Paused())
    assert wall - monotonic == 1_800_000_000_000
