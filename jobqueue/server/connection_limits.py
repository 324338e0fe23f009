"""ConnectionLimits: how many connections each address has, so that none can take all of them."""

from collections.abc import Callable
from ipaddress import ip_address

from jobqueue.web.access.browser_policy import UNIX
from jobqueue.web.access.rate_limits import network

# The most connections of one address, unless the setting says otherwise.
BY_ADDRESS = 4096


class ConnectionLimits:
    """Counts open connections by address.

    `limit`: for each address; None: no limit. `shared_limit`: the same for an address that many clients
    share: this machine itself, and proxies, for which `is_proxy` returns True.
    """

    def __init__(
        self,
        limit: int | None,
        shared_limit: int | None = None,
        is_proxy: Callable[[str], bool] = lambda peer: False,
    ) -> None:
        self.limit = limit
        self.shared_limit = shared_limit
        self.is_proxy = is_proxy
        self._open: dict[str, int] = {}

    def set_limits(self, given: int | None, connections: int) -> None:
        """Sets both limits to the setting `given`, or by default to a part of all `connections`."""
        half = max(connections // 2, 1)
        self.limit = given or min(half, BY_ADDRESS)
        self.shared_limit = given or half

    def full(self, peer: str) -> bool:
        """Returns whether `peer` may have no further connection. Unix-socket clients are not limited."""
        return self.limit is not None and peer != UNIX and self._open.get(network(peer), 0) >= self.of(peer)

    def of(self, peer: str) -> int:
        """Returns the limit of `peer`. There must be one."""
        assert self.limit is not None
        if self.shared_limit is not None and (_is_this_machine(peer) or self.is_proxy(peer)):
            return self.shared_limit
        return self.limit

    def opened(self, peer: str) -> None:
        if self.limit is not None:
            name = network(peer)
            self._open[name] = self._open.get(name, 0) + 1

    def closed(self, peer: str) -> None:
        if self.limit is not None:
            name = network(peer)
            left = self._open.get(name, 0) - 1
            if left > 0:
                self._open[name] = left
            else:
                self._open.pop(name, None)


def _is_this_machine(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
