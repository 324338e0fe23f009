"""`jobqueue top`, `tail` and `ping`: what the server does now."""

from __future__ import annotations

import shutil
import sys
import time
from argparse import Namespace
from typing import Any, Final

import msgspec

from jobqueue.cli.arguments import Parser, add_connection, add_output, whole_number
from jobqueue.cli.commands import Verb
from jobqueue.cli.output import put, say
from jobqueue.cli.session import Session
from jobqueue.client.errors import AnswerLost
from jobqueue.client.models import Event

# Seconds before a stream that was ended is opened again.
_PAUSE: Final = 1.0
# The least that is shown of the name of a queue, if there are longer ones.
_SHORTEST: Final = 12
# What the server's first screen begins with, and each one; what its lines end with, and what it ends with.
_CLEAR, _HOME, _END_OF_LINE, _BELOW = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"


def _declare_top(parser: Parser) -> None:
    parser.add_argument("--for", dest="for_", metavar="TIME", help="end after this time (at Ctrl-C)")
    add_connection(parser)


def _top(given: Namespace) -> int:
    given.json, given.text = False, True
    with Session(given) as session, session.client.server.top(for_=given.for_) as screens:
        table = sys.stdout.isatty()
        whole = ""
        for piece in screens:
            whole += piece
            while (end := whole.find(_BELOW)) >= 0:
                screen, whole = whole[:end], whole[end + len(_BELOW) :]
                put(_fitted(screen) if table else _without_codes(screen) + "\n")
    return 0


def _without_codes(screen: str) -> str:
    return screen.replace(_CLEAR, "").replace(_HOME, "").replace(_END_OF_LINE, "")


def _fitted(screen: str) -> str:
    """Returns the screen cut to the size of the terminal, since one that scrolls cannot be redrawn."""
    columns, rows = shutil.get_terminal_size()
    shown = _without_codes(screen).split("\n")[: rows - 1]
    lines = [line[:columns] for line in _with_short_names(shown, columns)]
    first = _CLEAR if _CLEAR in screen else ""
    return first + _HOME + f"{_END_OF_LINE}\n".join(lines) + _END_OF_LINE + _BELOW


def _with_short_names(lines: list[str], columns: int) -> list[str]:
    """Returns lines whose table of queues fits into the columns, if names cut to `_SHORTEST` achieve that."""
    head = next((number for number, line in enumerate(lines) if line.startswith("QUEUE ")), len(lines))
    table = [line for line in lines[head:] if "  " in line]  # and not the line "and 7 more"
    too_long = max(map(len, table), default=0) - columns
    if too_long <= 0:
        return lines
    width = max(len(line.partition("  ")[0]) for line in table)
    new = max(width - too_long, _SHORTEST)
    short = [_shortened(line[:width].rstrip(), new) + line[width:] for line in table]
    return lines[:head] + short + lines[head + len(short) :]


def _shortened(name: str, width: int) -> str:
    return (name if len(name) <= width else f"{name[: width - 1]}…").ljust(width)


def _declare_tail(parser: Parser) -> None:
    add = parser.add_argument
    add("-q", "--queue", metavar="A,B", help="only of these queues")
    add("-e", "--event", metavar="A,B", help="only these events, such as dead,failed")
    add("--job", type=whole_number, metavar="ID", help="only of this job")
    add("--since", metavar="ID", help="first what came after the event with this id")
    add("--for", dest="for_", metavar="TIME", help="end after this time (at Ctrl-C)")
    add_output(parser)
    add_connection(parser)


def _tail(given: Namespace) -> int:
    after = given.since
    with Session(given) as session:
        while True:
            try:
                with session.client.server.events(
                    queue=given.queue, job=given.job, event=given.event, after=after, for_=given.for_
                ) as events:
                    for event in events:
                        put(_row(event) if session.table else _line(event))
                        after = event.id or after
                if given.for_ is not None:
                    return 0
            except AnswerLost as lost:
                # With --for, the rest of the time is not known; before the first event there is no place to
                # go on from.
                if after is None or given.for_ is not None:
                    raise
                say(f"{lost.detail}; going on after event {after}")
            # The stream has ended: the server stops, we were too slow, or the connection is lost.
            time.sleep(_PAUSE)


def _line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


def _row(event: Event) -> str:
    from jobqueue.web.writers.text_tables import visible

    data: dict[str, Any] = event.data if isinstance(event.data, dict) else {}
    cells = [
        data.get("at", ""),
        f"{event.event:10}",
        data.get("id", ""),
        data.get("queue", ""),
        data.get("type", ""),
    ]
    cells += [f"by {data['consumer']}"] if "consumer" in data else []
    return visible("  ".join(str(cell) for cell in cells).rstrip()) + "\n"


def _declare_ping(parser: Parser) -> None:
    add_output(parser)
    add_connection(parser)


def _ping(given: Namespace) -> int:
    with Session(given) as session:
        session.client.server.ready()
        session.show()
    return 0


TOP: Final = Verb(_declare_top, _top)
TAIL: Final = Verb(_declare_tail, _tail)
PING: Final = Verb(_declare_ping, _ping)
