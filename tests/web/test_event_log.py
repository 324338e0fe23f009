"""The log of events and the subscriptions that read it, without a server."""

import pytest

from jobqueue.model import Job
from jobqueue.web.schema.events import EventFilter
from jobqueue.web.streams import event_log, subscription
from jobqueue.web.streams.event_log import EventLog
from jobqueue.web.streams.subscription import Subscription

NOW = 1_700_000_000_000
ALL = EventFilter()


def record(log, *ids, queue="default"):
    """Adds an event for a job of each id, and lets clients have them."""
    for id in ids:
        assert log.append("enqueue", Job(id, queue, "t", 0, b"1", NOW, id), NOW)
    log.commit(log.last)


def begun(log, wanted=ALL, last_id=None):
    new = Subscription(log, wanted)
    return new, new.begin(last_id, NOW)


def test_a_subscription_begins_with_what_happens_after_it():
    log = EventLog()
    record(log, 1)
    reader, first = begun(log)
    assert (first, reader.read()) == (b"", b"")
    record(log, 2)
    assert b'"id":2,' in reader.read()
    assert reader.read() == b""


def test_a_step_that_is_no_event_gets_no_number():
    log = EventLog()
    before = log.last
    assert not log.append("forget", Job(1, "default", "t", 0, b"1", NOW, 1), NOW)
    assert log.last == before


@pytest.mark.parametrize("wanted", [ALL, EventFilter(jobs=frozenset({1, 2}))])
def test_events_that_are_not_committed_are_not_read(wanted):
    log = EventLog()
    record(log, 1)
    log.append("enqueue", Job(2, "default", "t", 0, b"1", NOW, 2), NOW)
    reader, _ = begun(log, wanted, log.first - 1)
    assert reader.read().count(b"event: ") == 1


def test_the_ring_has_the_latest_events_and_a_gap_says_which_are_lost(monkeypatch):
    monkeypatch.setattr(event_log, "RING_EVENTS", 3)
    log = EventLog()
    start = log.last
    record(log, 1, 2, 3, 4, 5)
    assert (log.first, log.last) == (start + 3, start + 5)
    reader, first = begun(log, last_id=start + 1)
    assert first.startswith(b"id: %d\nevent: gap\n" % (start + 2))
    assert b'"after":%d,"next":%d' % (start + 1, start + 3) in first
    assert reader.read().count(b"event: enqueued") == 3
    assert begun(log, last_id=start + 2)[1] == b""


def test_a_subscription_that_falls_out_of_the_ring_has_lost_events(monkeypatch):
    monkeypatch.setattr(event_log, "RING_EVENTS", 3)
    log = EventLog()
    reader, _ = begun(log)
    record(log, 1, 2, 3)
    assert not reader.has_lost()
    record(log, 4)
    assert reader.has_lost()


def test_a_subscription_to_certain_jobs_is_bounded_too(monkeypatch):
    monkeypatch.setattr(subscription, "PENDING_EVENTS", 2)
    log = EventLog()
    reader, _ = begun(log, EventFilter(jobs=frozenset({1, 2, 3})))
    record(log, 1, 2, 3)
    events = list(log.between(log.last - 2, log.last))
    for event in events[:2]:
        reader.offer(event)
    assert not reader.has_lost()
    reader.offer(events[2])
    assert reader.has_lost()
    assert reader.read().count(b"event: ") == 2


def test_after_a_pause_of_recording_the_last_event_read_is_followed_by_a_gap():
    log = EventLog()
    record(log, 1)
    known = log.last
    log.clear()
    assert b"event: gap" in begun(log, last_id=known)[1]
