"""Rate limits for many keys, such as addresses and access tokens."""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

# Keys that are kept; the one that was used longest ago is dropped first.
_MOST = 10_000


class TokenBuckets:
    """A token bucket for each key: `burst` at once, then `rate` a second. The number of keys kept is
    bounded.
    """

    __slots__ = ("_buckets", "_burst", "_most", "_rate")

    def __init__(self, rate: float, burst: float, most: int = _MOST) -> None:
        self._rate = rate
        self._burst = burst
        self._most = most
        # By key: the tokens that were left, and when.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> float:
        """Takes a token.

        Returns 0, or the seconds until there is one. `now` is in seconds of the monotonic clock.
        """
        left = self._left(key, now)
        if left < 1:
            return (1 - left) / self._rate
        self._buckets[key] = (left - 1, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return 0.0

    def wait(self, key: str, now: float) -> float:
        """Returns the seconds until there is a token, without taking one."""
        left = self._left(key, now)
        return 0.0 if left >= 1 else (1 - left) / self._rate

    def _left(self, key: str, now: float) -> float:
        known = self._buckets.get(key)
        return self._burst if known is None else min(known[0] + (now - known[1]) * self._rate, self._burst)


def network(peer: str) -> str:
    """Returns the key of an address: an IPv4 address, or the first 64 bits of an IPv6 address, which one
    customer has.
    """
    if ":" not in peer:
        return peer
    try:
        address = ip_address(peer)
    except ValueError:
        return peer
    if not isinstance(address, IPv6Address):
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
