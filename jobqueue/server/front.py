"""Front: reads HTTP from accepted sockets. There are two implementations; the program knows only this."""

import socket
from typing import Protocol

from jobqueue.server.connection_limits import ConnectionLimits


class Front(Protocol):
    name: str
    peers: ConnectionLimits

    def take(self, accepted: socket.socket, peer: str) -> None:
        """Serves a connection from now on, and owns its socket."""

    def connections(self) -> int:
        """Number of open connections, those in a TLS handshake included."""

    def sweep(self, parts: int = 1) -> None:
        """Ends connections that are over their deadline. Checks one of `parts` equal parts of them, in
        turn: with many connections a check of all would hold up the loop."""

    def arriving(self) -> bool:
        """Whether something that clients have sent is still to be read or performed: in a socket, in a
        handshake, or in a request of which a part has come. Takes time proportional to the connections."""

    def drain(self) -> None:
        """Closes idle connections, and the others after the response that they wait for."""

    def busy(self) -> int:
        """Number of requests that still have to be answered."""

    def close(self) -> None:
        """Cuts the connections that are left."""
