"""Shards: the parts in which the jobs of a cluster are owned. A family of queues is in one shard, for ever.

A family is what stands before the first colon of a queue's name, so `mail`, `mail:high` and `mail:dead` are
one. An id tells the shard in which its job was made:

    2^52  +  shard << 46  +  number

Ids below 2^52 are those of a database with one shard, or of a journal that was moved to one with more.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Final

from jobqueue.clock import MS_2026

MOST_SHARDS: Final = 64
_MARK: Final = 1 << 52
_BITS: Final = 46


def family(queue: str) -> str:
    """Returns the family of a queue's name."""
    return queue.partition(":")[0]


@lru_cache(maxsize=10_000)
def shard_of_queue(queue: str, shards: int) -> int:
    """Returns the shard, out of `shards`, that has the queue of this name."""
    digest = blake2b(family(queue).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % shards


def shard_of_id(id: int) -> int | None:
    """Returns the shard in which a job was made; None if its id does not tell."""
    return (id - _MARK) >> _BITS if id >= _MARK else None


def first_id_of(shard: int, wall: int) -> int:
    """Returns the first id of a shard that has no jobs. It is above every id of an earlier run that gave less
    than 20,000 a second, and within the shard until the year 2137. `wall`: milliseconds since 1970."""
    return _MARK + (shard << _BITS) + max((wall - MS_2026) // 1000, 0) * 20_000 + 1
