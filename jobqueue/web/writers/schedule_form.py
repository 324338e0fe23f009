"""The form that changes a schedule. `FIELDS` has its inputs, also for those who read the form."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Final, get_args

import msgspec
from msgspec import Raw

from jobqueue.model import Misfire, Overlap
from jobqueue.web.schema.schedules import SET_BY_THE_SERVER
from jobqueue.web.writers.action_forms import Field, action, folded, inputs
from jobqueue.web.writers.enqueued_again import printable
from jobqueue.web.writers.page_layout import View
from jobqueue.web.writers.queue_settings import Setting, length_text

# The hidden field with the schedule as the page showed it. What the form does not change is sent as it was.
PLAN: Final = "_plan"
# Names of the fields of its jobs begin so.
OF_JOB: Final = "job."
_PAYLOAD: Final = f"{OF_JOB}payload"
# Characters of a schedule that a form takes.
_LONGEST = 16 << 10
# What is not sent again: a pause stays as it is.
_NOT_SENT = frozenset({*SET_BY_THE_SERVER, "name", "paused"})
_CHANGE = "Change the schedule"

FIELDS: Mapping[str, tuple[Setting, ...]] = {
    "When": (
        Setting("cron", "cron", "text", "30 2 * * *"),
        Setting("timezone", "time zone of cron", "text", "UTC"),
        Setting("every", "or every", "length", "15m"),
        Setting("starts_at", "not before", "text", "2027-01-31T08:00:00Z"),
        Setting("ends_at", "not after", "text", "2027-12-31T08:00:00Z"),
        Setting("jitter", "jitter", "length", "none"),
    ),
    "If instants were missed, or its last job is not finished": (
        Setting("misfire", "missed instants", "choice", choices=get_args(Misfire)),
        Setting("grace", "at most so late", "length", "no limit"),
        Setting("overlap", "unfinished job", "choice", choices=get_args(Overlap)),
    ),
    "Job": (
        Setting(f"{OF_JOB}type", "type", "text"),
        Setting(f"{OF_JOB}queue", "queue", "text", "default"),
        Setting(f"{OF_JOB}priority", "priority", "whole", "0"),
        Setting(_PAYLOAD, "payload (JSON)", "json", "null"),
    ),
}
read_plan = msgspec.json.Decoder(dict[str, Raw]).decode


def schedule_form(view: View, name: str, body: bytes) -> str:
    """Returns the form that changes a schedule, or a line that says why there is none. `body`: the schedule
    as JSON."""
    if "admin" not in view.rights:
        return ""
    plan = {key: value for key, value in read_plan(body).items() if key not in _NOT_SENT}
    kept = msgspec.json.encode(plan).decode()
    if len(kept) > _LONGEST:
        return '<span class="dim">No form to change it: it is too long for one.</span>'
    shown = texts(plan)
    parts = []
    for title, several in FIELDS.items():
        fields = list(_fields(several, shown))
        parts.append(f"<fieldset><legend>{escape(title)}</legend>{inputs(fields)}</fieldset>")
    said = "An empty field is the default."
    if _PAYLOAD not in shown:
        said += " Its payload is not JSON, and stays as it is."
    hidden = {"_method": "PUT", "_if_match": view.version, PLAN: kept}
    inside = f'{"".join(parts)}<p class="dim">{escape(said)}</p>'
    return folded("Change", action(view, f"/schedules/{name}", _CHANGE, hidden, inside=inside))


def texts(plan: Mapping[str, Raw]) -> dict[str, str]:
    """Returns what the fields are filled with. A payload that is not JSON is left out."""
    job = read_plan(plan.get("job", Raw(b"{}")))
    found: dict[str, str] = {}
    for several in FIELDS.values():
        for one in several:
            of, name = (
                (job, one.name.removeprefix(OF_JOB)) if one.name.startswith(OF_JOB) else (plan, one.name)
            )
            found[one.name] = _text(one, of[name]) if name in of else ""
    if "content_type" in job or "payload_encoding" in job:
        del found[_PAYLOAD]
    return found


def _text(setting: Setting, raw: Raw) -> str:
    if setting.kind == "json":
        text = printable(msgspec.json.format(bytes(raw), indent=0).decode())
        return "" if text == "null" else msgspec.json.format(text, indent=2)
    value = msgspec.json.decode(raw)
    if setting.kind == "length" and isinstance(value, (int, float)):
        return length_text(value) if value else ""
    return str(value)


def _fields(settings: tuple[Setting, ...], shown: Mapping[str, str]) -> Iterator[Field]:
    for one in settings:
        if one.name in shown:
            kind = {"whole": "number", "json": "textarea", "choice": "choice"}.get(one.kind, "text")
            yield Field(one.name, one.label, shown[one.name], kind, one.hint, one.choices)
