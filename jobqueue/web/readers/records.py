"""Parts of requests as records of the model."""

from msgspec import UNSET, UnsetType

from jobqueue.errors import InvalidField
from jobqueue.model import INHERIT, Backoff, Rate
from jobqueue.web.readers import fields
from jobqueue.web.schema import requests


def max_attempts(value: int | UnsetType | None) -> int | None:
    if value is UNSET:
        return INHERIT
    if value is None:
        return None
    if value == 0:
        raise InvalidField("max_attempts: 1 is no retry, null is no limit; not 0", field="max_attempts")
    return fields.whole(value, "max_attempts", 1, 10_000)


def backoff(value: list[int | float | str] | requests.BackoffShape) -> Backoff:
    if isinstance(value, list):
        if not 1 <= len(value) <= 100:
            raise InvalidField("backoff: 1 to 100 lengths", field="backoff")
        return Backoff(steps=tuple(fields.length(step, "backoff") for step in value), jitter=0.0)
    if not (1 <= value.factor <= 100 and 0 <= value.jitter <= 1):
        raise InvalidField("backoff: factor from 1 to 100, jitter from 0 to 1", field="backoff")
    return Backoff(
        fields.length(value.base, "backoff"), value.factor, fields.length(value.max, "backoff"), value.jitter
    )


def rate(value: requests.RateShape) -> Rate:
    count = fields.whole(value.count, "rate", 1, fields.MANY)
    burst = count if value.burst is None else fields.whole(value.burst, "rate", 1, fields.MANY)
    return Rate(count, fields.length(value.per, "rate", 1), burst)
