"""The form for the settings of a queue. `SETTINGS` has all of them, also for those who read the form."""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from jobqueue.web.schema.responses import Queue
from jobqueue.web.writers.action_forms import Field, action, inputs
from jobqueue.web.writers.enqueued_again import printable
from jobqueue.web.writers.page_layout import View

# The hidden field with what the other ones were filled with, so that only what was changed is sent.
GIVEN = "_given"
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60))


class Setting(Struct, frozen=True):
    """An input of the form. `name` is that of the API, with dots into objects. `kind` says how its text
    becomes JSON: "whole", "length", "lengths" (or JSON), "text", "flag", "json", or "choice" of `choices`."""

    name: str
    label: str
    kind: str
    hint: str = ""
    choices: tuple[str, ...] = ()


def _rate(before: str) -> tuple[Setting, ...]:
    return (
        Setting(f"{before}.count", "starts", "whole", "no limit"),
        Setting(f"{before}.per", "in", "length", "1s"),
        Setting(f"{before}.burst", "and at once", "whole", "a tenth"),
    )


SETTINGS: Mapping[str, tuple[Setting, ...]] = {
    "Attempts": (
        Setting("lease_for", "lease for", "length"),
        Setting("max_run_for", "max run for", "length", "no limit"),
        Setting("max_attempts", "max attempts", "whole"),
        Setting("backoff", "backoff", "lengths", "10s,1m,10m"),
        Setting("retain_for", "retain for", "length"),
        Setting("dead_letter", "dead letter queue", "text", "none"),
    ),
    "Limits": (
        Setting("max_jobs", "max jobs", "whole", "no limit"),
        Setting("max_bytes", "max bytes", "whole", "no limit"),
        Setting("max_in_progress", "max in progress", "whole", "no limit"),
    ),
    "Rate": _rate("rate"),
    "Each key": (
        Setting("key_limits.max_in_progress", "max in progress", "whole", "no limit"),
        Setting("key_limits.ordered", "in strict order", "flag"),
        Setting("key_limits.batch", "batch", "whole", "1"),
        Setting("fair_keys", "keys take turns", "flag"),
    ),
    "Rate of each key": _rate("key_limits.rate"),
    "Attributes": (Setting("attributes", "a JSON object of your own", "json"),),
}


def settings_form(view: View, queue: Queue, defaults: Mapping[str, str]) -> str:
    """Returns the form that changes the settings of a queue. `defaults`: what holds if one is not set."""
    # Attributes may be any JSON, also numbers that no float can hold.
    settings = replace(queue.settings, attributes=UNSET)
    known: dict[str, Any] = msgspec.to_builtins(settings)
    if queue.settings.attributes is not UNSET:
        known["attributes"] = queue.settings.attributes
    given: dict[str, str] = {}
    parts = []
    for title, several in SETTINGS.items():
        fields = list(_fields(several, known, defaults, given))
        parts.append(f"<fieldset><legend>{escape(title)}</legend>{inputs(fields)}</fieldset>")
    hidden = {"_method": "PATCH", "_if_match": view.version, GIVEN: json.dumps(given)}
    said = '<p class="dim">An empty field is the default.</p>'
    return action(view, f"/queues/{queue.name}", "Change settings", hidden, inside="".join(parts) + said)


def _fields(
    settings: Sequence[Setting], known: Mapping[str, Any], defaults: Mapping[str, str], given: dict[str, str]
) -> Iterator[Field]:
    """Yields the inputs of a group, and notes in `given` what they are filled with."""
    for setting in settings:
        value: Any = known
        for part in setting.name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        shown = "" if value is None else _text(value, setting.kind)
        if shown:
            given[setting.name] = shown
        kind = {"whole": "number", "flag": "flag", "json": "textarea"}.get(setting.kind, "text")
        no_limit = setting.name in known and value is None  # as SQS has it for attempts
        hint = "no limit" if no_limit else setting.hint or defaults.get(setting.name, "")
        yield Field(setting.name, setting.label, shown, kind, hint)


def _text(value: Any, kind: str) -> str:
    if kind == "length":
        return length_text(value)
    if kind == "lengths" and isinstance(value, list):
        return ",".join(map(length_text, value))
    if kind == "json":
        return msgspec.json.format(printable(bytes(value).decode()), indent=2)
    if kind == "lengths":
        return json.dumps(value)
    return "true" if value is True else str(value)


def length_text(seconds: float) -> str:
    """Returns a length as the API takes it, in its largest unit that needs no fraction."""
    for unit, length in _UNITS:
        if seconds and seconds % length == 0:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:g}s" if seconds == round(seconds, 3) and seconds < 100_000 else f"{seconds}s"
