"""How long idempotency keys are remembered, and how many."""

from collections import OrderedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.core.idempotency import IdempotencyKeys
from jobqueue.model import RecordedAnswer


def ids(answered):
    return None if answered is None else answered.ids


def test_the_answer_to_a_request_is_found_by_the_same_owner_and_key():
    keys = IdempotencyKeys(1_000, 10)
    keys.put("ann", "k", b"digest", (7, 8), True, 500)
    found = keys.get("ann", "k", 500)
    assert (found.digest, found.ids, found.many) == (b"digest", (7, 8), True)
    for owner, key in (("bob", "k"), ("ann", "K"), ("ann", ""), ("k", "ann")):
        assert keys.get(owner, key, 500) is None


def test_a_key_is_remembered_for_its_age_and_not_a_millisecond_longer():
    keys = IdempotencyKeys(1_000, 10)
    keys.put("ann", "k", b"", (1,), False, 500)
    assert ids(keys.get("ann", "k", 1_499)) == (1,)
    assert keys.get("ann", "k", 1_500) is None


def test_no_more_than_the_newest_keys_are_remembered():
    keys = IdempotencyKeys(1_000, 3)
    for number in range(5):
        keys.put("ann", str(number), b"", (number,), False, number)
        assert len(keys) == min(number + 1, 3)
    assert [ids(keys.get("ann", str(number), 5)) for number in range(5)] == [None, None, (2,), (3,), (4,)]


def test_the_ids_of_large_batches_are_limited_too():
    keys = IdempotencyKeys(1_000, 3)
    for number in range(4):
        keys.put("ann", str(number), b"", tuple(range(5)), True, number)
    assert [ids(keys.get("ann", str(number), 5)) for number in range(4)] == [
        None,
        None,
        *[tuple(range(5))] * 2,
    ]
    assert keys.window(5) == 1_000 - (1_002 - 5)
    for _ in range(9):
        keys.put("ann", "3", b"", tuple(range(5)), True, 6)  # the same one again counts once
    assert len(keys) == 2
    keys.put("ann", "huge", b"", tuple(range(20)), True, 7)
    assert (len(keys), keys.window(7)) == (0, 0)
    assert keys.forget_old(9_999, 5) is False
    keys.put("ann", "k", b"", tuple(range(12)), True, 8)
    assert len(keys) == 1


def test_a_key_that_an_earlier_run_left_twice_counts_once():
    keys = IdempotencyKeys(1_000, 3)
    for until in (500, 900):
        keys.restore("ann", "k", RecordedAnswer(b"", (1, 2), True, until))
    assert (ids(keys.get("ann", "k", 600)), keys._ids, len(keys)) == ((1, 2), 2, 1)


def test_a_key_used_again_after_its_time_is_new_again():
    keys = IdempotencyKeys(1_000, 2)
    keys.put("ann", "a", b"", (1,), False, 0)
    keys.put("ann", "b", b"", (2,), False, 1)
    keys.put("ann", "a", b"", (3,), False, 1_200)
    assert len(keys) == 2
    keys.put("ann", "c", b"", (4,), False, 1_201)
    assert (ids(keys.get("ann", "a", 1_202)), keys.get("ann", "b", 1_202)) == ((3,), None)


def test_old_keys_are_dropped_in_slices_the_oldest_first():
    keys = IdempotencyKeys(1_000, 100)
    for number in range(10):
        keys.put("ann", str(number), b"", (), False, number)
    assert not keys.forget_old(999, 5)
    assert len(keys) == 10
    assert keys.forget_old(1_006, 5)
    assert len(keys) == 5
    assert not keys.forget_old(1_006, 5)
    assert len(keys) == 3
    assert not keys.forget_old(9_999, 5)
    assert len(keys) == 0


def test_the_window_is_the_age_until_too_many_keys_shorten_it():
    keys = IdempotencyKeys(1_000, 2)
    assert keys.window(0) == 1_000
    keys.put("ann", "a", b"", (), False, 100)
    assert keys.window(600) == 1_000
    keys.put("ann", "b", b"", (), False, 300)
    assert keys.window(600) == 500
    keys.put("ann", "c", b"", (), False, 600)
    assert keys.window(600) == 300


@settings(deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "put", "get", "forget"]), st.integers(0, 6), st.integers(0, 60))
    )
)
def test_keys_are_a_bounded_mapping_by_age(turns):
    keys, plain, now = IdempotencyKeys(100, 4), OrderedDict(), 0
    for number, (what, key, later) in enumerate(turns):
        now += later
        name = str(key)
        if what == "put" and keys.get("ann", name, now) is None:
            keys.put("ann", name, b"", (number,), False, now)
            plain.pop(name, None)
            plain[name] = (number, now + 100)
            while len(plain) > 4:
                plain.popitem(last=False)
        elif what == "forget":
            keys.forget_old(now, 100)
            plain = OrderedDict((key, kept) for key, kept in plain.items() if kept[1] > now)
            assert len(keys) == len(plain)
        for each in map(str, range(7)):
            kept = plain.get(each)
            assert ids(keys.get("ann", each, now)) == ((kept[0],) if kept and kept[1] > now else None)
