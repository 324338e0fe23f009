"""Which server is to own which shard. All servers that see the same servers come to the same answer."""

from collections.abc import Sequence
from hashlib import blake2b


def assigned(servers: Sequence[str], shards: int) -> list[str]:
    """Returns the server of each shard. Each has about as many, and when one joins or leaves, most shards
    stay where they are. Raises `ValueError` without servers."""
    if not servers:
        raise ValueError("there are no servers")
    most = -(-shards // len(servers))
    owned = dict.fromkeys(servers, 0)
    places: list[str] = []
    for shard in range(shards):
        free = [server for server in owned if owned[server] < most]
        place = max(free, key=lambda server: _rank(server, shard))
        owned[place] += 1
        places.append(place)
    return places


def _rank(server: str, shard: int) -> bytes:
    return blake2b(f"{shard} {server}".encode(), digest_size=8).digest()
