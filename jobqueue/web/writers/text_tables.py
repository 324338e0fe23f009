"""Answers as text for a terminal: tables, or one fact a line. Made from the JSON answers."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Raw

Document = dict[str, Raw]

_decode = msgspec.json.Decoder(Document).decode
_numbers = msgspec.json.Decoder(list[int]).decode
_names = msgspec.json.Decoder(list[str]).decode
_list_of = msgspec.json.Decoder(list[Document]).decode
# Characters of a long text that are shown.
_LONG = 2000


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """Formats rows as columns. Columns in `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def plain(value: Raw | bytes) -> str:
    """Returns a JSON value as text: strings without quotes, no control characters but line breaks."""
    raw = bytes(value)
    text = msgspec.json.decode(raw) if raw[:1] == b'"' else raw.decode("utf-8")
    if len(text) > _LONG:
        text = f"{text[:_LONG]}… ({len(text):,} characters)"
    return visible(text)


def visible(text: str, kept: str = "\n\t") -> str:
    """Returns text with its control characters as escapes, except for those of `kept`."""
    if text.isprintable():
        return text
    lines = text.replace("\r\n", "\n")
    return "".join(char if char.isprintable() or char in kept else f"\\u{ord(char):04x}" for char in lines)


# -- queues -----------------------------------------------------------------------------------------

HEADS = ("QUEUE", "QUEUED", "RUNNING", "LATER", "DEAD", "DONE", "OLDEST", "IN/S", "OUT/S", "WAITING", "")
NUMBERS = frozenset(range(1, len(HEADS) - 1))


def queue_rows(body: bytes) -> list[list[str]]:
    """Returns a row for each queue of the answer to `/queues`."""
    return [_queue_row(queue) for queue in _list_of(_decode(body)["queues"])]


def _queue_row(queue: Document) -> list[str]:
    jobs, rates = _decode(queue["jobs"]), _decode(queue["rates"])
    oldest = f"{round(float(queue['oldest_age']))} s" if "oldest_age" in queue else ""
    counts = [plain(jobs[name]) for name in ("queued", "in_progress", "scheduled", "dead", "concluded")]
    paused = "paused" if bytes(queue["paused"]) == b"true" else ""
    return [
        plain(queue["name"]), *counts, oldest, plain(rates["in"]), plain(rates["out"]),
        plain(queue["consumers_waiting"]), paused,
    ]  # fmt: skip


def more(body: bytes) -> str | None:
    """Returns the cursor of the next page, or None."""
    cursor = _decode(body).get("next")
    return None if cursor is None else plain(cursor)


def queues(body: bytes) -> str:
    return _with_more(table([HEADS, *queue_rows(body)], NUMBERS), body)


def _with_more(text: str, body: bytes) -> str:
    cursor = more(body)
    return text if cursor is None else f"{text}more: cursor={cursor}\n"


# -- series -----------------------------------------------------------------------------------------

SERIES_HEADS = ("", "ALL", "LAST", "")
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60  # bars of a series
_numbers = msgspec.json.Decoder(list[int]).decode


def series(body: bytes) -> str:
    """Formats the series of a queue: for each a sum, the last number and bars, the highest one being the
    largest number. Of jobs queued the first number is the largest one."""
    answer = _decode(body)
    head = (
        f"{plain(answer['queue'])}  {plain(answer['from'])} to {plain(answer['until'])}, in steps of "
        f"{plain(answer['step'])} s\n"
    )
    if bytes(answer["kept"]) == b"false":
        return head + "no series: there are too many queues, or this one has not been used\n"
    rows: list[Sequence[str]] = [SERIES_HEADS]
    for name, value in answer.items():
        if bytes(value)[:1] == b"[":
            numbers = _numbers(value)
            all_of = (max if name == "queued" else sum)(numbers or [0])
            rows.append([name, str(all_of), str(numbers[-1]) if numbers else "", _bars(numbers)])
    return head + table(rows, frozenset({1, 2}))


def _bars(numbers: Sequence[int]) -> str:
    each = -(-len(numbers) // _WIDTH) or 1
    shown = [max(numbers[at : at + each]) for at in range(0, len(numbers), each)]
    highest = max(shown, default=0)
    return "".join(_BARS[-(-number * 7 // highest)] if highest else _BARS[0] for number in shown)


# -- jobs -------------------------------------------------------------------------------------------

JOB_HEADS = ("ID", "STATUS", "QUEUE", "TYPE", "PRIORITY", "ATTEMPTS", "CREATED", "ERROR")
_JOB_FIELDS = ("id", "status", "queue", "type", "priority", "attempts", "created_at")
_SHORT = 60  # characters of an error in a list
JOB_NUMBERS = frozenset({0, 4, 5})
GROUP_NUMBERS = frozenset({0, 1, 2})


def job_rows(body: bytes) -> list[list[str]]:
    """Returns a row for each job of the answer to `/jobs`."""
    return [
        [*[plain(job[name]) for name in _JOB_FIELDS], short_error(job["error"]) if "error" in job else ""]
        for job in _list_of(_decode(body)["jobs"])
    ]


def short_error(error: Raw) -> str:
    """Returns the first line of an error, with its type."""
    raw = bytes(error)
    if raw[:1] == b"{":
        members = _decode(raw)
        said = [plain(members[name]) for name in ("type", "message") if name in members]
        text = ": ".join(said)
    else:
        text = plain(raw)
    line = text.strip().partition("\n")[0]
    return line if len(line) <= _SHORT else f"{line[:_SHORT]}…"


def jobs(body: bytes) -> str:
    return _with_more(table([JOB_HEADS, *job_rows(body)], JOB_NUMBERS), body)


def group_rows(body: bytes) -> list[list[str]]:
    """Returns the heads, and a row for each group of the answer to `/jobs/groups`."""
    groups = _list_of(_decode(body)["groups"])
    by = [name for name in ("queue", "type", "error", "reason", "key") if any(name in one for one in groups)]
    counts = ("count", "dead", "retrying")
    return [
        [name.upper() for name in (*counts, *by)],
        *([*[plain(one[name]) for name in counts], *[_line_of(one, name) for name in by]] for one in groups),
    ]


def jobs_left(body: bytes) -> str:
    """Returns how many jobs the groups that are not shown have, in words; nothing if all are shown."""
    rest = int(plain(_decode(body)["rest"]))
    return f"{rest:,} more in other groups\n" if rest else ""


def groups(body: bytes) -> str:
    return table(group_rows(body), GROUP_NUMBERS) + jobs_left(body)


# -- consumers --------------------------------------------------------------------------------------

CONSUMER_HEADS = ("CONSUMER", "RUNNING", "LAST SEEN", "JOB", "QUEUE", "TYPE", "SINCE", "LEASE UNTIL")
CONSUMER_NUMBERS = frozenset({1, 3})
WAITING_HEADS = ("WAITING", "QUEUES", "UNTIL")


def consumer_rows(body: bytes) -> tuple[list[list[str]], list[list[str]]]:
    """Returns a row for each job that the answer to `/consumers` shows, and one for each consumer that
    waits."""
    answer = _decode(body)
    holding = []
    for one in _list_of(answer["consumers"]):
        first = [_plain_of(one, "consumer") or "-", plain(one["in_progress"]), plain(one["last_seen"])]
        for job in _list_of(one["jobs"]):
            cells = [plain(job[name]) for name in ("id", "queue", "type", "started_at", "lease_expires_at")]
            holding.append([*first, *cells])
            first = ["", "", ""]
    waiting = [
        [
            _plain_of(one, "consumer") or "-",
            visible(", ".join(msgspec.json.decode(one["queues"], type=list[str]))),
            plain(one["wait_until"]),
        ]
        for one in _list_of(answer["waiting"])
    ]
    return holding, waiting


def consumers(body: bytes) -> str:
    holding, waiting = consumer_rows(body)
    tables = (table([CONSUMER_HEADS, *holding], CONSUMER_NUMBERS), table([WAITING_HEADS, *waiting]))
    return "\n".join(tables)


# -- servers ----------------------------------------------------------------------------------------

SERVER_HEADS = ("SERVER", "ROLE", "STARTED", "LAST SEEN", "ADDRESS")


def server_rows(body: bytes) -> list[list[str]]:
    """Returns a row for each server of the answer to `/cluster`."""
    return [
        [
            plain(one["server"]),
            _role(one),
            plain(one["started_at"]),
            f"{plain(one['seen'])} s ago",
            _plain_of(one, "address"),
        ]
        for one in _list_of(_decode(body)["servers"])
    ]


def _role(server: dict[str, Raw]) -> str:
    if "shards" in server:
        count = len(_numbers(server["shards"]))
        return "owns 1 shard" if count == 1 else f"owns {count} shards"
    return "owner of the jobs" if bytes(server["owner"]) == b"true" else "on standby"


def cluster(body: bytes) -> str:
    rows, answer = server_rows(body), _decode(body)
    if not rows:
        return "this server shares its jobs with no other\n"
    text = table([SERVER_HEADS, *rows])
    if "last_takeover" in answer:
        last = _decode(answer["last_takeover"])
        how = "which had not handed over" if bytes(last["forced"]) == b"true" else "which handed over"
        text += f"last takeover: {plain(last['at'])}, from {plain(last['before'])}, {how}\n"
    return text


# -- access tokens and the audit log ---------------------------------------------------------------

TOKEN_HEADS = ("TOKEN", "RIGHTS", "QUEUES", "SQS", "EXPIRES", "LAST USED")
AUDIT_HEADS = ("AT", "WHO", "METHOD", "PATH", "STATUS", "JOBS", "FROM", "REQUEST")
AUDIT_NUMBERS = frozenset({4, 5})


def token_rows(body: bytes) -> list[list[str]]:
    """Returns a row for each access token of the answer to `/tokens`."""
    return [
        [
            plain(one["name"]),
            ", ".join(_names(one["rights"])),
            ", ".join(_names(one["queues"])) if "queues" in one else "all",
            "yes" if bytes(one["sqs"]) == b"true" else "",
            _plain_of(one, "expires_at"),
            _plain_of(one, "last_used_at"),
        ]
        for one in _list_of(_decode(body)["tokens"])
    ]


def tokens(body: bytes) -> str:
    return _with_more(table([TOKEN_HEADS, *token_rows(body)]), body)


def audit_rows(body: bytes) -> list[list[str]]:
    """Returns a row for each call of the answer to `/audit`."""
    return [
        [
            plain(one["at"]), _plain_of(one, "who") or "-", plain(one["method"]), plain(one["path"]),
            plain(one["status"]), _plain_of(one, "changed"), _plain_of(one, "peer") or "-",
            plain(one["request_id"]),
        ]
        for one in _list_of(_decode(body)["calls"])
    ]  # fmt: skip


def audit(body: bytes) -> str:
    return table([AUDIT_HEADS, *audit_rows(body)], AUDIT_NUMBERS)


# -- schedules --------------------------------------------------------------------------------------

SCHEDULE_HEADS = ("SCHEDULE", "GROUP", "WHEN", "NEXT", "LAST", "OUTCOME", "TYPE", "QUEUE", "")


def schedule_rows(body: bytes) -> list[list[str]]:
    """Returns a row for each schedule of the answer to `/schedules`."""
    return [_schedule_row(schedule) for schedule in _list_of(_decode(body)["schedules"])]


def _schedule_row(schedule: Document) -> list[str]:
    job = _decode(schedule["job"])
    last = _decode(schedule["last"]) if "last" in schedule else {}
    if "cron" in schedule:
        when = f"{plain(schedule['cron'])} {plain(schedule['timezone'])}"
    else:
        when = f"every {plain(schedule['every'])} s"
    paused = "paused" if bytes(schedule["paused"]) == b"true" else ""
    return [
        plain(schedule["name"]), _plain_of(schedule, "group"), when, _plain_of(schedule, "next_at"),
        _plain_of(last, "due_at"), _plain_of(last, "outcome"), plain(job["type"]), plain(job["queue"]),
        "blocked" if "blocked" in schedule else paused,
    ]  # fmt: skip


def _plain_of(document: Document, name: str) -> str:
    return plain(document[name]) if name in document else ""


def _line_of(document: Document, name: str) -> str:
    """Returns the first line of a member, shortened."""
    return short_error(document[name]) if name in document else ""


def schedules(body: bytes) -> str:
    return _with_more(table([SCHEDULE_HEADS, *schedule_rows(body)]), body)


def facts(body: bytes) -> list[tuple[str, str]]:
    """Returns the members of an object and of the objects in it, by name. Empty ones are left out."""
    return list(_facts(_decode(body), ""))


def _facts(document: Document, before: str) -> Iterable[tuple[str, str]]:
    """Yields the facts of an object. `before`: the way to it; empty: it is the answer itself. What is deeper
    may be anybody's own JSON, where `history` and `error` are names as any other."""
    for name, value in document.items():
        raw, name = bytes(value), visible(name, "")
        if raw[:1] == b"{" and (before or name not in ("payload", "result", "error", "headers")):
            yield from _facts(_decode(raw), f"{before}{name}.")
        elif name == "history" and not before:
            for attempt in _list_of(raw):
                parts = [
                    short_error(part) if key == "error" else plain(part)
                    for key, part in attempt.items()
                    if key != "attempt"
                ]
                yield f"attempt {plain(attempt['attempt'])}", "  ".join(parts)
        elif name == "error" and not before and raw[:1] == b"{":
            yield from _error_facts(_decode(raw))
        else:
            yield before + name, plain(value)


def _error_facts(error: Document) -> Iterable[tuple[str, str]]:
    """Yields an error that is an object: its type and message, then its details, a traceback as lines."""
    said = [plain(error[name]) for name in ("type", "message") if name in error]
    yield "error", ": ".join(said)
    if "details" not in error:
        return
    raw = bytes(error["details"])
    if raw[:1] == b"{":
        yield from _facts(_decode(raw), "error.")
    else:
        yield "error.details", plain(error["details"])


def one(body: bytes) -> str:
    """Formats a queue or a job. Further lines of a value are aligned with its first one."""
    rows = []
    for name, value in facts(body):
        first, *others = value.removesuffix("\n").split("\n")
        rows += [(name, first), *(("", line) for line in others)]
    return table(rows)
