"""The form for the settings of a queue: what was changed in it becomes the body of `PATCH /queues/NAME`."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from jobqueue.errors import InvalidField
from jobqueue.web.readers.json_text import REFUSED
from jobqueue.web.writers.queue_settings import SETTINGS, Setting

_WHOLE = re.compile(r"-?[0-9]{1,15}")
_DECIMAL = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_read_given = msgspec.json.Decoder(dict[str, str]).decode


def changes(fields: Mapping[str, str], given: str) -> dict[str, Any]:
    """Returns the merge-patch that a form asks for. A setting whose field was emptied is null, and an
    object of which nothing is left. `given`: what the fields were filled with, as JSON. Fields that the form
    does not have stay as they are. Raises `InvalidField`."""
    try:
        before = _read_given(given)
    except REFUSED as bad:
        raise InvalidField(f"_given: must be a JSON object of texts: {bad}", field="_given") from None
    patch: dict[str, Any] = {}
    for top, settings in _TOPS.items():
        sent = {one.name: fields.get(one.name, before.get(one.name, "")).strip() for one in settings}
        if all(value == before.get(name, "").strip() for name, value in sent.items()):
            continue
        _drop_rates(sent, before)
        patch[top] = _nested(top, settings, sent)
    return patch


def _drop_rates(sent: dict[str, str], before: Mapping[str, str]) -> None:
    """Empties the other fields of a rate of which the number of starts was emptied."""
    for name in [name for name in sent if name.endswith(".count") and before.get(name) and not sent[name]]:
        rate = name.removesuffix("count")
        sent.update({other: "" for other in sent if other.startswith(rate)})


def _tops() -> dict[str, list[Setting]]:
    """Returns the settings by the name of the field of the API that has them."""
    tops: dict[str, list[Setting]] = {}
    for settings in SETTINGS.values():
        for one in settings:
            tops.setdefault(one.name.partition(".")[0], []).append(one)
    return tops


_TOPS = _tops()


def _nested(top: str, settings: list[Setting], sent: Mapping[str, str]) -> Any:
    """Returns the value of a field: null if no text is left of it, an object if it has several."""
    if settings[0].name == top:
        return value_of(settings[0], sent[top])
    made: dict[str, Any] = {}
    for one in settings:
        if not sent[one.name]:
            continue
        *way, last = one.name.split(".")[1:]
        inside = made
        for part in way:
            inside = inside.setdefault(part, {})
        inside[last] = value_of(one, sent[one.name])
    return made or None


def value_of(setting: Setting, text: str) -> Any:
    """Returns the JSON value of the text of a field. One of a wrong form is sent as it is, and the call tells
    what is wrong with it."""
    if not text:
        return None
    if setting.kind == "flag":
        return text == "true"
    if setting.kind == "json" or (setting.kind == "lengths" and text[0] in "[{"):
        try:
            msgspec.json.decode(text, type=Raw)
        except REFUSED as bad:
            raise InvalidField(f"{setting.name}: must be JSON: {bad}", field=setting.name) from None
        return Raw(text.encode())
    if setting.kind == "lengths":
        return [_number(part.strip()) for part in text.split(",")]
    return text if setting.kind in ("text", "choice") else _number(text)


def _number(text: str) -> int | float | str:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text
