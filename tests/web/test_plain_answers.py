"""Plain answers are put together as text. They are what the encoder of JSON makes of the same jobs."""

from hypothesis import given
from hypothesis import strategies as st

from jobqueue.job import with_extras
from jobqueue.model import Job, JobExtras, Lease
from jobqueue.steps import STATUSES
from jobqueue.web.writers.encoder import Encoder

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20) | st.sampled_from(
    ['"', "\\", "/", "é", "a"]
)
numbers = st.integers(0, 2**53)
instants = st.integers(0, 253_339_228_799_999)
lengths = st.integers(1, 10**11)
leases = st.builds(
    Lease,
    st.from_regex("[A-Za-z0-9_-]{16,22}", fullmatch=True),
    st.none() | texts,
    instants,
    lengths,
    lengths,
    instants,
)
jobs = st.builds(
    Job, numbers, texts, texts, st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([b"null", b'{"a":"\xc3\xa9"}', b"[" + b"1," * 1000 + b"1]"]), instants, numbers,
    st.sampled_from(STATUSES), numbers, numbers,
)  # fmt: skip


def encoder():
    return Encoder(lambda monotonic: monotonic, "identity", 1000)


@given(jobs)
def test_a_new_job_is_what_the_encoder_makes_of_its_view(job):
    one = encoder()
    job.attempts = job.leases = 0
    for _ in range(2):  # the names are known then
        assert one.new_job(job) == one.encode(one.view(job))


@given(jobs, leases)
def test_a_delivery_is_what_the_encoder_makes_of_its_view(job, lease):
    one = encoder()
    assert one.handed((job, lease)) == one.handed((with_extras(job, JobExtras()), lease))


@given(jobs, leases, st.none() | instants)
def test_an_ended_job_is_what_the_encoder_makes_of_its_view(job, lease, finished_at):
    one = encoder()
    job.lease, job.extras = lease, JobExtras(finished_at=finished_at)
    assert one.job(job) == one.encode(one.view(job))


def test_names_beyond_those_that_are_kept_are_encoded_too():
    one = encoder()
    for number in range(5000):
        assert b'"type":"t%d"' % number in one.new_job(Job(1, "q", f"t{number}", 0, b"null", 0, 1))
