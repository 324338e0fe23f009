"""ConnectionLimits: how many connections each address has, so that none can take all of them."""

from jobqueue.web.access.browser_policy import UNIX
from jobqueue.web.access.rate_limits import network


class ConnectionLimits:
    """Counts open connections by address. `limit`: for each address; None: no limit."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._open: dict[str, int] = {}

    def full(self, peer: str) -> bool:
        """Whether `peer` may have no further connection. Unix-socket clients are not limited."""
        if peer == UNIX:
            return False
        return self.limit is not None and self._open.get(network(peer), 0) >= self.limit

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
