"""Which shard has a queue, and which one made an id."""

from jobqueue.shards import MOST_SHARDS, family, first_id_of, shard_of_id, shard_of_queue

_2100 = 4_102_444_800_000


def test_what_stands_before_the_first_colon_is_the_family():
    assert family("mail") == family("mail:high") == family("mail:high:eu") == "mail"
    assert family(":x") == ""
    for name in ("mail", "é", "a" * 300):
        assert shard_of_queue(name, 16) == shard_of_queue(f"{name}:dead", 16)


def test_a_queue_stays_in_its_shard_in_every_version():
    """These must never change: they are where the jobs of existing databases are."""
    assert [shard_of_queue(name, 16) for name in ("default", "mail", "é", "")] == [9, 3, 2, 5]
    assert shard_of_queue("default", 1) == 0


def test_shards_have_about_equally_many_families():
    counts = [0] * 16
    for number in range(16_000):
        counts[shard_of_queue(f"family-{number}", 16)] += 1
    assert min(counts) > 850
    assert max(counts) < 1150


def test_an_id_tells_its_shard_and_is_exact_in_javascript():
    for shard in (0, 1, MOST_SHARDS - 1):
        first = first_id_of(shard, _2100)
        assert shard_of_id(first) == shard
        assert first_id_of(shard, 0) < first
        assert first + 10**9 < 1 << 53
    assert shard_of_id((1 << 52) - 1) is None
    assert shard_of_id(1) is None
