"""A job is encoded and read again with all of its fields; rows of older versions have fewer."""

import gc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue import job as job_module
from jobqueue.job import Job, JobExtras, Lease, job_row, lease_row
from jobqueue.job_parts import Attempt, Backoff, JobTrace, Options
from jobqueue.job_rows import ExtrasRow, JobRow, LeaseRow, job_of, lease_of

COMPILED = job_module.__file__.endswith(".so")
numbers = st.integers(0, 2**53)
texts = st.text(max_size=5)
steps = st.sampled_from(["conclude", "fail", "stale"])
perhaps = st.none() | numbers
leases = st.builds(
    Lease, texts, st.none() | texts, numbers, numbers, numbers, numbers, numbers, perhaps, st.none() | steps,
    perhaps,
)  # fmt: skip
options = st.builds(Options, perhaps, perhaps, st.none() | st.just(Backoff()), key=st.none() | texts)
attempts = st.tuples() | st.tuples(
    st.builds(Attempt, numbers, texts, numbers, numbers, steps, st.binary(max_size=3))
)
traces = st.builds(JobTrace, st.none() | st.just("attempts"), history=attempts, progress=perhaps)
extras = st.builds(
    JobExtras, perhaps, st.none() | st.binary(max_size=3), st.booleans(), perhaps, perhaps, st.none() | options,
    st.none() | traces,
)  # fmt: skip
jobs = st.builds(
    Job, numbers, texts, texts, st.integers(-(2**31), 2**31 - 1), st.binary(max_size=5), numbers, numbers,
    st.sampled_from(["queued", "in_progress", "dead"]), numbers, numbers, numbers, st.none() | leases,
    st.none() | extras,
)  # fmt: skip
encode = msgspec.msgpack.encode


@given(jobs)
def test_a_job_is_read_as_it_was_encoded(job):
    encoded = encode(job_row(job, job.payload))
    read = job_of(msgspec.msgpack.decode(encoded, type=JobRow))
    assert encode(job_row(read, read.payload)) == encoded
    assert (read.id, read.place, read.queue, read.status) == (job.id, job.place, job.queue, job.status)
    assert (read.lease is None, read.extras is None) == (job.lease is None, job.extras is None)


@given(leases)
def test_a_lease_alone_is_read_as_it_was_encoded(lease):
    encoded = encode(lease_row(lease))
    read = lease_of(msgspec.msgpack.decode(encoded, type=LeaseRow))
    assert encode(lease_row(read)) == encoded
    assert (read.token, read.expires, read.ends) == (lease.token, lease.expires, lease.ends)


def test_what_is_encoded_has_the_names_and_the_order_of_what_is_read():
    """Numbers that are all different show a field at the place of another one."""
    lease = Lease("token", "consumer", 1, 2, 3, 4, 5, 6, "fail", 7)
    more = JobExtras(1, b"result", True, 2, 3, Options(), JobTrace())
    job = Job(1, "queue", "type", 2, b"payload", 3, 4, "dead", 5, 6, 7, lease, more)
    for record, row, kind in (
        (lease, lease_row(lease), LeaseRow),
        (job, job_row(job, job.payload)[:11], JobRow),
        (more, job_row(job, b"")[12], ExtrasRow),
    ):
        names = kind.__struct_fields__[: len(row)]
        assert list(row) == [getattr(record, name) for name in names]


def test_a_row_with_only_the_first_fields_is_read():
    row = msgspec.msgpack.decode(encode((7, "q", "t", 0, b"1", 5, 7)), type=JobRow)
    job = job_of(row)
    assert (job.id, job.status, job.attempts, job.leases, job.lease, job.extras) == (
        7,
        "queued",
        0,
        0,
        None,
        None,
    )


@pytest.mark.skipif(not COMPILED, reason="the sources have plain classes")
def test_compiled_records_are_small_and_not_tracked_by_the_garbage_collector():
    lease = Lease("token", None, 1, 2, 3, 4)
    job = Job(1, "q", "t", 0, b"1", 5, 1, lease=lease, extras=JobExtras())
    assert not any(gc.is_tracked(record) for record in (job, lease, job.extras))
    assert type(job).__basicsize__ <= 128
