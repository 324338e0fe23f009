"""Front: what reads HTTP from accepted sockets. There are two, and the program knows them by this only."""

import socket
from typing import Protocol

from jobqueue.server.connection_limits import ConnectionLimits


class Front(Protocol):
    name: str
    peers: ConnectionLimits

    def take(self, accepted: socket.socket, peer: str) -> None:
        """Serves a connection from now on; owns the socket."""

    def connections(self) -> int: ...

    def sweep(self, parts: int = 1) -> None:
        """Closes connections that are over their time. Looks at one of `parts` of them, in turn: with many
        connections a look at all is a pause of its own."""

    def drain(self) -> None:
        """The server stops: idle connections are closed, the others after the answer they wait for."""

    def busy(self) -> int:
        """How many requests are still to be answered."""

    def close(self) -> None:
        """Cuts what is left."""
