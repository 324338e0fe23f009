"""The form of a schedule: what was changed in it, and what the page showed, become the body of
`PUT /schedules/NAME`."""

from collections.abc import Mapping
from typing import Any

from jobqueue.errors import InvalidField
from jobqueue.web.dashboard.queue_settings import value_of
from jobqueue.web.readers.json_text import REFUSED
from jobqueue.web.writers.schedule_form import FIELDS, OF_JOB, PLAN, read_plan, texts


def changed(fields: Mapping[str, str], given: str) -> dict[str, Any]:
    """Returns the schedule that a form asks for. A field that was emptied is left out, so that it gets its
    default. `given`: the schedule as the page showed it, as JSON; what the form does not change, or does not
    show, stays so to the letter. Raises `InvalidField`."""
    try:
        known = read_plan(given)
        shown = texts(known)
        job: dict[str, Any] = {**read_plan(known.get("job", b"{}"))}
    except REFUSED as bad:
        raise InvalidField(f"{PLAN}: must be a schedule as JSON: {bad}", field=PLAN) from None
    plan: dict[str, Any] = {**known, "job": job}
    for several in FIELDS.values():
        for one in several:
            sent = fields.get(one.name, shown.get(one.name, "")).strip()
            if sent == shown.get(one.name, "").strip():
                continue
            of, name = (
                (job, one.name.removeprefix(OF_JOB)) if one.name.startswith(OF_JOB) else (plan, one.name)
            )
            of.pop(name, None)
            if sent:
                of[name] = value_of(one, sent)
    return plan
