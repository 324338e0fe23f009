"""Every HTTP test runs over both fronts, and over the fast one's short cut for heads that it has seen."""

import os
from collections.abc import Iterator

import pytest
from serving import Server, serving
from tornado.ioloop import IOLoop

from jobqueue import Settings
from jobqueue.testing import ManualClock

# "fast again" is the fast front with cached heads. In CI there is also the engine with a journal, which gives the
# same answers later; there the fast front sees each head for the first time. "fast passed on" is a server of a cluster,
# which passes all calls on to another one: everywhere with TEST_ALL or PASSED_ON, else for some modules.
PASSED_ON = "fast passed on"
THOROUGH = bool(os.environ.get("TEST_ALL"))
FRONTS = (
    [PASSED_ON]
    if os.environ.get("PASSED_ON")
    else ["fast again", "tornado", PASSED_ON, *(["fast journal"] if THOROUGH else [])]
)
PASSED_ON_IN = {
    "test_a_journal_that_fails", "test_http_dequeue", "test_http_schedules", "test_sessions", "test_sqs_fifo", "test_stream_jobs", "test_tokens",
    "test_verbs_many", "test_verbs_once", "test_verbs_queues", "test_verbs_release_fail",
}  # fmt: skip
# What such a server does otherwise, and why.
_OWN_METRICS = "metrics are of the server's own shards"
_DATABASE = "such a server always has a database"
OTHERWISE = {
    "test_metrics_count_the_steps_of_the_jobs_of_each_queue": _OWN_METRICS,
    "test_metrics_describe_the_process": _OWN_METRICS,
    "test_queues_beyond_the_limit_are_reported_as_one": _OWN_METRICS,
    "test_dead_jobs_that_are_forgotten_before_their_time_are_counted_and_are_events": _OWN_METRICS,
    "test_a_queue_that_comes_again_goes_on_counting_where_it_was": _OWN_METRICS,
    "test_schedules_are_counted_by_their_states_and_outcomes": _OWN_METRICS,
    "test_healthz_shows_version_durability_and_access_control": _DATABASE,
    "test_stats_shows_the_figures_of_the_server": _DATABASE,
    "test_a_stopping_server_is_healthy_but_not_ready_and_accepts_no_jobs": "the test stops the owner only",
    "test_another_body_under_the_same_key_is_refused": "the owner finds it after the body was read",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    dropped = []
    for item in items:
        if PASSED_ON not in item.name:
            continue
        if not (THOROUGH or os.environ.get("PASSED_ON") or item.path.stem in PASSED_ON_IN):
            dropped.append(item)
        elif (why := OTHERWISE.get(getattr(item, "originalname", ""))) is not None:
            item.add_marker(pytest.mark.skip(reason=why))
    config.hook.pytest_deselected(items=dropped)
    gone = set(dropped)
    items[:] = [item for item in items if item not in gone]


@pytest.fixture(params=FRONTS)
def server(
    request: pytest.FixtureRequest, io_loop: IOLoop, settings: Settings, clock: ManualClock
) -> Iterator[Server]:
    yield from serving(io_loop, request.param, settings, clock)
