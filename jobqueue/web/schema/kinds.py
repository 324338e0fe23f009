"""The kinds of fields in requests.

A kind is declared once and gives a field its check, its unit, the messages about it, and its keywords in the
OpenAPI document. `schema.requests` declares the kind of each field; `kind_of` finds it.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar, Final, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Raw

from jobqueue import model
from jobqueue.errors import InvalidField
from jobqueue.settings import Settings
from jobqueue.units import (
    DURATION_HELP,
    DURATION_PATTERN,
    INSTANT_PATTERN,
    duration_ms,
    parse_instant,
    seconds,
)

_DAY_MS: Final = 86_400_000
# The longest delay: how far ahead anything may be put off.
YEAR_MS: Final = 366 * _DAY_MS
MANY: Final = 2**53 - 1
# Names that are remembered once they were checked.
_REMEMBERED: Final = 10_000
_MAX_HEADERS: Final = 4 << 10
_MAX_ATTRIBUTES: Final = 4 << 10
MAX_VALUES: Final = 100  # of a filter
_OF_NUMBERS: Final = ("minimum", "maximum")
_OF_ITEMS: Final = ("minItems", "maxItems")
_INSTANT: Final = {
    "title": "Instant", "description": "an instant with an offset, of the years 1970 to 9998",
    "format": "date-time", "pattern": INSTANT_PATTERN,
}  # fmt: skip
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_DECIMAL: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
_BOOLEANS: Final = {"1": True, "true": True, "": True, "0": False, "false": False}


class Kind:
    """A kind of field.

    - `expects` completes "must be …" in messages, and describes the field in the OpenAPI document.
    - `low` and `high`, both included, limit its value, or its length; None: the least and most of the kind.
    - `setting` gives `high`, once the kind is bound to settings.
    - `in_query`: it may also come in the query; otherwise it belongs in the body.
    - `schema`: further keywords of JSON Schema. A title makes it a schema of its own in the document.
    """

    keywords: ClassVar = ("minLength", "maxLength")
    most: ClassVar[int] = MANY

    def __init__(
        self,
        expects: str = "text",
        low: int | None = None,
        high: int | None = None,
        setting: str = "",
        in_query: bool = True,
        schema: dict[str, Any] | None = None,
    ) -> None:
        self.expects = expects
        self.low = low or 0
        self.high = self.most if high is None else high
        self.in_query = in_query
        self.schema: dict[str, Any] = {} if schema is None else dict(schema)
        self._setting = setting
        if low is not None:
            self.schema[self.keywords[0]] = self.shown(low)
        if high is not None:
            self.schema[self.keywords[1]] = self.shown(high)

    @property
    def meta(self) -> Meta:
        """What declares a field of this kind: `Annotated[type, kind.meta]`. The decoder does not check it."""
        return Meta(extra_json_schema=self.schema or None, extra={"kind": self})

    def bound(self, settings: Settings) -> "Kind":
        """Returns this kind with the limit that the settings give."""
        if not self._setting:
            return self
        high: int = getattr(settings, self._setting)
        return type(self)(self.expects, self.low, high, self._setting, self.in_query, self.schema)

    def shown(self, limit: int) -> Any:
        """Returns a limit as clients see it. As a `float`, compiled code would make 16 of it 16.0."""
        return limit

    def facts(self) -> dict[str, Any]:
        """Returns the facts of an error about the upper limit."""
        setting = {"setting": f"JOBQUEUE_{self._setting.upper()}"} if self._setting else {}
        return {"limit": self.shown(self.high), **setting}

    def check(self, value: Any, field: str) -> Any:
        """Returns a value of the declared type as the engine wants it.

        Raises `InvalidField` with the name `field`.
        """
        return value

    def from_text(self, text: str, field: str) -> Any:
        """Returns the value of an option in the query, where all is text. Raises `InvalidField`."""
        return text

    def meaning(self, value: Any) -> object:
        """Returns a value that is equal for two ways to write the same."""
        return value


# -- text -------------------------------------------------------------------------------------------


class Text(Kind):
    """Text of a limited length; `rule` says so to people. If it has a pattern, without control characters."""

    def __init__(
        self, expects: str, rule: str, low: int | None, high: int, schema: dict[str, Any] | None = None
    ) -> None:
        super().__init__(expects, low, high, schema=schema)
        self._rule = rule
        self._any = "pattern" not in self.schema

    def check(self, value: str, field: str) -> str:
        size = len(value)
        if self.low <= size <= self.high and (self._any or value.isprintable() or not _CONTROL.search(value)):
            return value
        facts = {} if self.low else self.facts()  # the rule is but a limit then
        raise InvalidField(f"{field}: {self._rule}", field=field, **facts)


class Cut(Kind):
    """Text of any length, of which `high` characters are kept."""

    def __init__(self, expects: str, high: int) -> None:
        super().__init__(expects)
        self.high = high

    def check(self, value: str, field: str) -> str:
        return value if len(value) <= self.high else value[: self.high - 1] + "…"


class Name(Kind):
    """Text that the pattern of its schema matches; `rule` says so to people.

    Names in use are few and repeat. Bound to settings, those in `known` are not checked again.
    """

    def __init__(self, expects: str, rule: str, schema: dict[str, Any], in_query: bool = True) -> None:
        super().__init__(expects, in_query=in_query, schema=schema)
        self.known: set[str] = set()
        self._rule = rule
        self._pattern = re.compile(schema["pattern"][1:-1])
        self._most = schema.get("maxLength", MANY)
        self._remembered = 0

    def check(self, value: str, field: str) -> str:
        if value in self.known:
            return value
        if len(value) > self._most or not self._pattern.fullmatch(value):
            raise InvalidField(f"{field}: {self._rule}; not {value[:40]!r}", field=field)
        if len(self.known) < self._remembered:
            self.known.add(value)
        return value

    def bound(self, settings: Settings) -> Kind:
        name = Name(self.expects, self._rule, self.schema, self.in_query)
        name._remembered = _REMEMBERED
        return name


class OneOf(Kind):
    """One of a few words; the decoder checks it in a body."""

    def __init__(self, *words: str, in_query: bool = True) -> None:
        super().__init__(listed(words), in_query=in_query)
        self._words = words

    def from_text(self, text: str, field: str) -> str:
        if text not in self._words:
            raise InvalidField(f"{field}: {self.expects}; not {text[:40]!r}", field=field)
        return text


class Flag(Kind):
    def from_text(self, text: str, field: str) -> bool:
        if text.lower() not in _BOOLEANS:
            raise InvalidField(f"{field}: 1 or true, 0 or false; not {text[:40]!r}", field=field)
        return _BOOLEANS[text.lower()]


# -- numbers ----------------------------------------------------------------------------------------


class Whole(Kind):
    """A whole number."""

    keywords: ClassVar = _OF_NUMBERS

    def check(self, value: int, field: str) -> int:
        if not self.low <= value <= self.high:
            raise InvalidField(
                f"{field}: a whole number from {self.low:,} to {self.high:,}", field=field, **self.facts()
            )
        return value

    def from_text(self, text: str, field: str) -> Any:
        if not _INTEGER.fullmatch(text):
            raise InvalidField(f"{field}: a whole number, in digits; not {text[:40]!r}", field=field)
        return int(text)


class Percent(Kind):
    """A whole number that may come with a fraction, which is rounded."""

    keywords: ClassVar = _OF_NUMBERS

    def check(self, value: Any, field: str) -> int:
        whole: int = round(value)
        if not self.low <= whole <= self.high:
            raise InvalidField(
                f"{field}: a number from {self.low} to {self.high}", field=field, **self.facts()
            )
        return whole

    def from_text(self, text: str, field: str) -> Any:
        if not _DECIMAL.fullmatch(text):
            raise InvalidField(f"{field}: a number, in digits; not {text[:40]!r}", field=field)
        return float(text)


class Number(Kind):
    """A number with or without a fraction, in an object that checks it."""

    keywords: ClassVar = _OF_NUMBERS


class Priority(Kind):
    """A whole number of 32 bits, which the decoder checks in a body."""

    def from_text(self, text: str, field: str) -> int:
        number = Whole("", self.low, self.high)
        return number.check(number.from_text(text, field), field)

    @property
    def meta(self) -> Meta:
        return Meta(ge=self.low, le=self.high, extra={"kind": self})


class MaxAttempts(Kind):
    """How often a job may be tried. None means no limit."""

    keywords: ClassVar = _OF_NUMBERS

    def check(self, value: int, field: str) -> int:
        if value == 0:
            raise InvalidField(f"{field}: 1 is no retry, null is no limit; not 0", field=field)
        return Whole("", self.low, self.high).check(value, field)

    def from_text(self, text: str, field: str) -> Any:
        return None if text in ("null", "none") else Whole().from_text(text, field)


class Cursor(Kind):
    """The cursor of a list of jobs, which is the id of a job."""

    def check(self, value: str, field: str) -> int:
        if not _is_id(value):
            raise InvalidField(f"{field}: what `next` was in the answer before", field=field)
        return int(value)


# -- time -------------------------------------------------------------------------------------------


class Duration(Kind):
    """A length of time; the engine takes milliseconds, and so are its limits."""

    keywords: ClassVar = _OF_NUMBERS
    most: ClassVar[int] = YEAR_MS

    def check(self, value: float | str, field: str) -> int:
        try:
            ms = duration_ms(value)
        except InvalidField as bad:
            raise InvalidField(f"{field}: {bad.detail}", field=field) from None
        if self.low <= ms <= self.high:
            return ms
        high, facts = self.high, self.facts()
        days = f" ({high // _DAY_MS} days)" if high > _DAY_MS and high % _DAY_MS == 0 else ""
        why = f"; {facts['setting']} sets the limit" if ms > high and "setting" in facts else ""
        limits = f"from {self.low / 1000:.9g} to {high / 1000:.9g} seconds{days}"
        raise InvalidField(f"{field}: {limits}{why}", field=field, **{**facts, "limit": high / 1000})

    def shown(self, limit: int) -> Any:
        return seconds(limit)

    def meaning(self, value: Any) -> object:
        try:
            return duration_ms(value)
        except InvalidField:
            return value


class Instant(Kind):
    """An instant with an offset; the engine takes milliseconds since 1970.

    `instead` says what else a bare number may have been meant for.
    """

    def __init__(self, expects: str, instead: str = "") -> None:
        super().__init__(expects, schema=_INSTANT)
        self._instead = instead

    def check(self, value: str, field: str) -> int:
        try:
            return parse_instant(value)
        except InvalidField as bad:
            is_bare = self._instead and value.replace(".", "", 1).lstrip("-").isdigit()
            hint = f"a bare number is not an instant; {self._instead}. " if is_bare else ""
            raise InvalidField(f"{field}: {hint}{bad.detail}", field=field) from None

    def from_text(self, text: str, field: str) -> str:
        """Restores a plus sign that was not encoded and became a space."""
        return text.replace(" ", "+") if text.count(" ") == 1 and "T" in text.upper() else text


# -- lists ------------------------------------------------------------------------------------------


class QueueNames(Kind):
    """Names of queues in a list, or in text with commas; once each and in order."""

    keywords: ClassVar = _OF_ITEMS

    def check(self, value: list[str] | str, field: str) -> tuple[str, ...]:
        names = _items(value)
        if not self.low <= len(names) <= self.high:
            raise InvalidField(f"{field}: name {self.low} to {self.high:,} queues", field=field)
        return tuple(dict.fromkeys([QUEUE_NAME.check(name, field) for name in names]))

    def meaning(self, value: Any) -> object:
        return _items(value)


class Tags(Kind):
    """A list of texts, once each and in order."""

    keywords: ClassVar = _OF_ITEMS

    def check(self, value: list[str], field: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys([TAG.check(tag, field) for tag in value]))
        if len(found) > self.high:
            raise InvalidField(f"{field}: at most {self.high}", field=field, **self.facts())
        return found

    def from_text(self, text: str, field: str) -> list[str]:
        return _items(text) if text else []


class Values(Kind):
    """Values that a filter accepts, in a list or in text with commas.

    `allowed`: there are no others; `meant`: which of them other queues call so.
    """

    keywords: ClassVar = _OF_ITEMS

    def __init__(
        self,
        expects: str,
        allowed: Sequence[str] = (),
        meant: Mapping[str, str] = {},
        high: int | None = None,
    ) -> None:
        super().__init__(expects, 1, high)
        self._allowed = allowed
        self._meant = meant

    def check(self, value: list[str] | str, field: str) -> frozenset[str]:
        items = _items(value)
        if not items or "" in items or len(items) > MAX_VALUES:
            raise InvalidField(f"{field}: 1 to {MAX_VALUES} values", field=field)
        for item in sorted(items) if self._allowed else ():
            if item not in self._allowed:
                near = get_close_matches(item[:40].lower(), self._allowed, 1)
                meant = self._meant.get(item.lower()) or (near[0] if near else None)
                hint = "" if meant is None else f"; did you mean {meant}?"
                known = ", ".join(self._allowed)
                raise InvalidField(f"{field}: must be one of {known}; not {item[:40]!r}{hint}", field=field)
        return frozenset(items)


class JobIds(Kind):
    keywords: ClassVar = _OF_ITEMS

    def check(self, value: list[int] | str, field: str) -> frozenset[int]:
        ids = [str(id).strip() for id in (value.split(",") if isinstance(value, str) else value)]
        if not self.low <= len(ids) <= self.high or False in map(_is_id, ids):
            raise InvalidField(f"{field}: {self.low} to {self.high} ids of jobs", field=field)
        return frozenset(map(int, ids))


class History(Kind):
    """The attempts of a job from another server."""

    keywords: ClassVar = _OF_ITEMS

    def check(self, value: list[Any], field: str) -> list[Any]:
        if len(value) > self.high:
            raise InvalidField(f"{field}: at most {self.high} attempts", field=field, **self.facts())
        return value


class Backoff(Kind):
    """A list of durations, or an object; the engine takes a record."""

    keywords: ClassVar = _OF_ITEMS

    def check(self, value: Any, field: str) -> model.Backoff:
        if isinstance(value, list):
            if not self.low <= len(value) <= self.high:
                raise InvalidField(f"{field}: {self.low} to {self.high} lengths", field=field)
            return model.Backoff(steps=tuple([DURATION.check(step, field) for step in value]))
        if not (FACTOR.low <= value.factor <= FACTOR.high and JITTER.low <= value.jitter <= JITTER.high):
            limits = f"factor from {FACTOR.low} to {FACTOR.high}, jitter from {JITTER.low} to {JITTER.high}"
            raise InvalidField(f"{field}: {limits}", field=field)
        base, longest = DURATION.check(value.base, field), DURATION.check(value.max, field)
        return model.Backoff(base, value.factor, longest, value.jitter)

    def from_text(self, text: str, field: str) -> list[str]:
        return _items(text) if text else []


# -- objects ----------------------------------------------------------------------------------------


class Headers(Kind):
    """An object of texts; the engine takes it as JSON, of a limited length."""

    def check(self, value: dict[str, str], field: str) -> bytes:
        text = msgspec.json.encode(value)
        if len(text) > _MAX_HEADERS:
            raise InvalidField(f"{field}: at most {_MAX_HEADERS:,} bytes", field=field, limit=_MAX_HEADERS)
        return text


class Attributes(Kind):
    """An object of any content; the engine takes it as JSON, of a limited length."""

    def check(self, value: dict[str, Raw], field: str) -> bytes:
        text = msgspec.json.encode(value)
        if len(text) > _MAX_ATTRIBUTES:
            raise InvalidField(
                f"{field}: at most {_MAX_ATTRIBUTES:,} bytes of JSON; this has {len(text):,}",
                field=field,
                limit=_MAX_ATTRIBUTES,
            )
        return text


class Rate(Kind):
    """An object; the engine takes a record."""

    def check(self, value: Any, field: str) -> model.Rate:
        count = COUNT.check(value.count, field)
        burst = model.default_burst(count) if value.burst is None else BURST.check(value.burst, field)
        return model.Rate(count, POSITIVE_DURATION.check(value.per, field), burst)


class KeyLimits(Kind):
    """An object; the engine takes a record."""

    def check(self, value: Any, field: str) -> model.KeyLimits:
        most, rate = value.max_in_progress, value.rate
        if KEY_BATCH.check(value.batch, field) > 1 and most is None and not value.ordered:
            raise InvalidField(
                f"{field}: batch is for keys with max_in_progress or ordered; without these one dequeue "
                "takes any number of jobs of a key",
                field=field,
            )
        return model.KeyLimits(
            None if most is None else COUNT.check(most, field),
            None if rate is None else RATE.check(rate, field),
            value.ordered,
            value.batch,
        )


class Error(Kind):
    """The error of a failed job, as JSON. `readers.job_error` checks it."""

    def from_text(self, text: str, field: str) -> Raw:
        return Raw(msgspec.json.encode(text))


# -- the kind of a field ----------------------------------------------------------------------------


def kind_of(declared: Any) -> Kind:
    """Returns the kind of a field of this type: the one in its annotation, else that of a plain type.

    Raises `TypeError` if it has none.
    """
    parts = (declared, *get_args(declared))
    for part in parts:
        for meta in getattr(part, "__metadata__", ()):
            kind: Kind = meta.extra["kind"]
            return kind
    for part in parts:
        if part in _PLAIN:
            return _PLAIN[part]
        if get_origin(part) is Literal:
            return OneOf(*get_args(part))
    raise TypeError(f"a field of type {declared} has no kind")


def whole(low: int, high: int) -> Whole:
    return Whole(f"a whole number from {low:,} to {high:,}", low, high)


def number(low: int, high: int) -> Number:
    return Number(f"a number from {low} to {high}", low, high, in_query=False)


def duration(title: str, low: int, high: int | None = None, setting: str = "") -> Duration:
    schema = {"title": title, "description": DURATION_HELP, "pattern": DURATION_PATTERN}
    return Duration(DURATION_HELP, low, high, setting, schema=schema)


def text(most: int, expects: str = "text") -> Text:
    rule = f"1 to {most} characters, no control characters"
    return Text(expects, rule, 1, most, {"pattern": r"^[^\u0000-\u001f\u007f]*$"})


def listed(words: Sequence[str]) -> str:
    """Returns `a, b or c`."""
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _items(value: list[str] | str) -> list[str]:
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else value


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 16


def _name_of(what: str, title: str) -> Name:
    rule = f"a {what}'s name is 1 to 128 letters, digits and _ . : - and begins with a letter, a digit or _"
    return Name(
        f"the name of a {what}", rule, {"title": title, "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$"}
    )


TAG: Final = text(64)
QUEUE_NAME: Final = _name_of("queue", "QueueName")
SCHEDULE_NAME: Final = _name_of("schedule", "ScheduleName")
TOKEN_NAME: Final = Name(
    "the name of an access token",
    "a token's name is 1 to 64 letters, digits and . _ -",
    {"title": "TokenName", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
)
# An unknown token is reported by the core.
LEASE: Final = Text("text", "the token that dequeue answered, 1 to 64 characters", 1, 64)
MESSAGE: Final = Cut("text; beyond 500 characters it is cut", 500)
COUNT: Final = whole(1, MANY)
BURST: Final = whole(0, MANY)
KEY_BATCH: Final = whole(1, 1000)
DURATION: Final = duration("Duration", 0, YEAR_MS)
POSITIVE_DURATION: Final = duration("PositiveDuration", 1, YEAR_MS)
FACTOR: Final = number(1, 100)
JITTER: Final = number(0, 1)
PRIORITY: Final = Priority(whole(-(2**31), 2**31 - 1).expects, -(2**31), 2**31 - 1)
MAX_ATTEMPTS: Final = MaxAttempts(f"{whole(1, 10_000).expects}, or null for no limit", 1, 10_000)
RATE: Final = Rate('{"count","per","burst"}', in_query=False)
# Kinds of plain types, for fields without a kind in their annotation.
_PLAIN: Final[dict[Any, Kind]] = {
    str: Kind(), bool: Flag("true or false"), Raw: Kind("JSON", in_query=False),
}  # fmt: skip
