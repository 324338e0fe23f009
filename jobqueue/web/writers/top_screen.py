"""The screen of `/top`: what the server does now, as text for a terminal."""

import time

from jobqueue.engine.api import EngineView
from jobqueue.units import instant
from jobqueue.web.server_info import ServerInfo
from jobqueue.web.writers import encoder, text_tables

# Seconds between two drawings.
REDRAW = 1.0
_MAX_QUEUES = 40
_HOME, _END_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class TopScreen:
    """Draws at most once in `REDRAW` seconds; all viewers with the same access share the drawing."""

    def __init__(self, engine: EngineView, server: ServerInfo) -> None:
        self._engine = engine
        self._server = server
        self._drawn_at = float("-inf")
        self._drawn = b""

    def __call__(self) -> bytes:
        """Returns the screen with the escape sequences that redraw it in place."""
        now = time.monotonic()
        if now - self._drawn_at >= REDRAW * 0.9:
            self._drawn_at = now
            text = screen(self._engine, self._server)
            self._drawn = (_HOME + text.replace("\n", _END_OF_LINE + "\n") + _BELOW).encode()
        return self._drawn


def screen(engine: EngineView, server: ServerInfo) -> str:
    """Returns the state of the server and a table of its queues."""
    s = engine.stats()
    counts = "  ".join(f"{name} {count:,}" for name, count in s.jobs.items())
    connections = server.connections()
    first = f"jobqueue {server.version}  {instant(engine.wall_now())}  {engine.durability}"
    about = f"{s.consumers_waiting:,} waiting  tick {s.tick_last:.1f} ms, at most {s.tick_max:.1f} ms"
    if connections is not None:
        about = f"{connections:,} connection{'' if connections == 1 else 's'}  {about}"
    views = engine.queues(_MAX_QUEUES)
    more = f"and {s.queues - len(views):,} more\n" if s.queues > len(views) else ""
    return f"{first}\n{counts}\n{about}\n\n{text_tables.queues(encoder.queues(views, None))}{more}"
