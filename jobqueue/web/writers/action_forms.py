"""Forms for the actions of the pages. Each form is one call of the API, and works without scripts.

A form is sent to `form/` and the path of its call. Fields that begin with `_` are for the dashboard; all
others are options of the call, left out where they are empty.
"""

from collections.abc import Iterable, Mapping
from html import escape

from msgspec import Struct

from jobqueue.web.writers.page_layout import View, link

# Bulk calls, and the statuses of jobs that each may be for; None: any.
BULK: Mapping[str, tuple[str, frozenset[str] | None]] = {
    "redrive": ("Redrive", frozenset({"dead"})),
    "run_now": ("Run now", frozenset({"scheduled"})),
    "cancel": ("Cancel", frozenset({"scheduled", "queued", "in_progress", "dead"})),
    "purge": ("Purge", None),
}
# What cannot be undone: a person confirms it by the number of jobs.
TYPED = frozenset({"purge", "cancel"})


class Field(Struct, frozen=True):
    """An input of a form. `kind` is text, number, textarea, choice (one of `choices`), or flag: "true" or
    nothing."""

    name: str
    label: str
    value: str = ""
    kind: str = "text"
    hint: str = ""
    choices: tuple[str, ...] = ()


def action(
    view: View,
    path: str,
    button: str,
    hidden: Mapping[str, str],
    fields: Iterable[Field] = (),
    back: str | None = None,
    label: str = "",
    inside: str = "",
) -> str:
    """Returns a form for the call at `path`. `label` says more than the button does, where several forms of a
    page have the same one. `inside`: more of the form, as HTML."""
    values = {**hidden, "_back": view.here if back is None else back}
    kept = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in values.items()
    )
    named = f' aria-label="{escape(label)}"' if label else ""
    return (
        f'<form class="fields" method="post" action="{view.up}form{escape(path)}">{kept}'
        f"{inputs(fields)}{inside}<button{named}>{escape(button)}</button></form>"
    )


def inputs(fields: Iterable[Field]) -> str:
    """Returns the inputs of a form, or of a part of it."""
    return "".join(map(_field, fields))


def _field(field: Field) -> str:
    name, value = escape(field.name), escape(field.value)
    hint = f' placeholder="{escape(field.hint)}"' if field.hint else ""
    if field.kind == "textarea":
        return f'<label>{escape(field.label)}<textarea name="{name}"{hint}>{value}</textarea></label>'
    if field.kind in ("flag", "choice"):
        choices = {"": "no", "true": "yes"} if field.kind == "flag" else {one: one for one in field.choices}
        options = "".join(
            f'<option value="{one}"{" selected" if one == field.value else ""}>{said}</option>'
            for one, said in choices.items()
        )
        return f'<label>{escape(field.label)}<select name="{name}">{options}</select></label>'
    mode = ' inputmode="numeric"' if field.kind == "number" else ""
    return f'<label>{escape(field.label)}<input name="{name}" value="{value}"{mode}{hint}></label>'


def folded(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>" if body else ""


# -- queues -----------------------------------------------------------------------------------------


def of_queue(view: View, name: str, paused: bool, version: str, settings: str) -> str:
    """Returns the actions on a queue. `version` is that of its entity tag, `settings` the form for its
    settings, as HTML."""
    path, match = f"/queues/{name}", {"_if_match": version}
    forms = []
    if "admin" in view.rights:
        if paused:
            forms.append(action(view, f"{path}/resume", "Resume", match))
        else:
            asked = (Field("reason", "reason"), Field("for", "for", hint="2h; empty: until resumed"))
            forms.append(folded("Pause", action(view, f"{path}/pause", "Pause", match, asked)))
    if "enqueue" in view.rights:
        forms.append(folded("Enqueue a job", enqueue_form(view, name)))
    if "admin" in view.rights:
        forms.append(folded("Settings", settings))
        forms.append(folded("All jobs of the queue", bulk(view, name, {})))
    return f'<div class="actions">{"".join(forms)}</div>'


def enqueue_form(view: View, queue: str, given: Mapping[str, str] = {}, options: str = "") -> str:
    """Returns the form that enqueues a job. `given` are values of its fields, `options` more options of the
    call, as a JSON object."""
    job = [Field(one, label, given.get(one, ""), kind, hint) for one, label, kind, hint in _ENQUEUE]
    hidden = {"_options": options} if options else {}
    return action(view, f"/queues/{queue}/enqueue", "Enqueue", hidden, job, f"queues/{queue}")


_ENQUEUE = (
    ("type", "type", "text", ""), ("priority", "priority", "number", ""), ("delay", "delay", "text", "5m"),
    ("key", "key", "text", ""), ("unique_key", "unique key", "text", ""), ("tags", "tags", "text", "eu,new"),
    ("payload", "payload (JSON)", "textarea", ""),
)  # fmt: skip


def bulk(view: View, queue: str, filters: Mapping[str, str], back: str | None = None) -> str:
    """Returns the bulk calls for the jobs of a queue that match. Each first counts them."""
    if "admin" not in view.rights:
        return ""
    statuses = {one for one in filters.get("status", "").split(",") if one}
    wanted: dict[str, str] = {**filters, "dry_run": "1"}
    if not filters:
        wanted["all"] = "1"
    forms = [
        action(view, f"/queues/{queue}/{verb}", f"{button}…", wanted, back=back, label=f"{button} in {queue}")
        for verb, (button, of) in BULK.items()
        if of is None or statuses <= of
    ]
    target = (Field("to", "to the queue"),)
    forms.append(
        action(view, f"/queues/{queue}/move", "Move…", wanted, target, back, f"Move jobs of {queue}")
    )
    return "".join(forms)


def redrive_group(view: View, group: Mapping[str, str], filters: Mapping[str, str], count: str) -> str:
    """Returns the form that redrives the dead jobs of a group, on a page with these filters; nothing if no
    filter selects exactly these jobs."""
    exact = all(
        value and name != "reason" and (name == "error" or "," not in value) for name, value in group.items()
    )
    if "admin" not in view.rights or not group.get("queue") or count == "0" or not exact:
        return ""
    asked = {**filters, **{name: value for name, value in group.items() if name != "queue"}}
    asked |= {"dry_run": "1", "status": "dead"}
    said = " ".join(asked[name] for name in ("type", "error") if name in asked)
    path = f"/queues/{group['queue']}/redrive"
    return action(view, path, "Redrive…", asked, label=f"Redrive {said} in {group['queue']}")


def confirm(
    view: View, path: str, asked: Mapping[str, str], matched: int, sample: Iterable[int], back: str
) -> str:
    """Returns what a bulk call would do, and the form that does it. `asked` are the fields of the dry run."""
    verb = path.rpartition("/")[2]
    button = {**{verb: button for verb, (button, _) in BULK.items()}, "move": "Move"}[verb]
    if not matched:
        return "<p>No job matches.</p>"
    some = ", ".join(link(view, f"jobs/{id}", str(id)) for id in sample)
    filters = ", ".join(f"{name} {value}" for name, value in asked.items() if name not in _HIDDEN)
    said = f"<p>{matched:,} jobs match{f' ({escape(filters)})' if filters else ''}: {some}, …</p>"
    hidden = {name: value for name, value in asked.items() if name != "dry_run"} | {"_expected": str(matched)}
    fields = (Field("_typed", f"type {matched} to confirm", kind="number"),) if verb in TYPED else ()
    return said + action(view, path, f"{button} all {matched:,} that match", hidden, fields, back)


_HIDDEN = frozenset({"all", "dry_run"})


# -- jobs -------------------------------------------------------------------------------------------


def of_job(view: View, job: Mapping[str, str], version: str) -> str:
    """Returns the actions on a job of these facts."""
    if "enqueue" not in view.rights:
        return ""
    path, match, status = f"/jobs/{job['id']}", {"_if_match": version}, job["status"]
    forms = []
    if status == "dead":
        forms.append(action(view, f"{path}/redrive", "Redrive", match))
    if status == "scheduled":
        forms.append(action(view, path, "Run now", {"_method": "PATCH", "delay": "0", **match}))
    if status == "in_progress":
        asked = {"_method": "DELETE", **match}
        forms.append(action(view, path, "Ask its consumer to stop", asked))
        forms.append(action(view, path, "Cancel at once", {**asked, "force": "1"}))
    elif status not in ("concluded", "cancelled"):
        forms.append(action(view, path, "Cancel", {"_method": "DELETE", **match}))
    if status in ("queued", "scheduled"):
        known = (
            Field("queue", "queue", job["queue"]),
            Field("priority", "priority", job["priority"], "number"),
            Field("delay", "ready in", hint="5m"),
            Field("payload", "new payload (JSON)", kind="textarea"),
        )
        forms.append(folded("Change", action(view, path, "Change", {"_method": "PATCH", **match}, known)))
    return "".join(forms)


# The path of the form for the jobs that are selected in a list, and the id by which their boxes belong to it.
SELECTED = "/form/jobs"
_FORM = "selected"


def box(id: str) -> str:
    """Returns a box by which a job of a list is selected."""
    return f'<input type="checkbox" name="id" value="{id}" form="{_FORM}" aria-label="Select job {id}">'


def of_selected(view: View, statuses: str) -> str:
    """Returns the actions on the jobs of a list that are selected. `statuses`: of the jobs in the list, with
    commas; "" if they may have any."""
    if "enqueue" not in view.rights:
        return ""
    those = {one for one in statuses.split(",") if one}
    buttons = "".join(
        f'<button name="_verb" value="{verb}">{button}</button>'
        for verb, (button, of) in BULK.items()
        if of is not None and (not those or those & of)
    )
    if not buttons:
        return ""
    return (
        f'<form class="fields selected" id="{_FORM}" method="post" action="{view.up}{SELECTED[1:]}">'
        f'<input type="hidden" name="_back" value="{escape(view.here)}">'
        f"<span>Selected jobs:</span>{buttons}</form>"
    )


def of_schedule(view: View, name: str, paused: bool, version: str, change: str) -> str:
    """Returns the actions on a schedule. `change`: the form that changes it, as HTML."""
    if "admin" not in view.rights:
        return ""
    path, match = f"/schedules/{name}", {"_if_match": version}
    forms = [action(view, f"{path}/run", "Run now", {})]
    if paused:
        forms.append(action(view, f"{path}/resume", "Resume", match))
    else:
        pause = action(view, f"{path}/pause", "Pause", match, (Field("reason", "reason"),))
        forms.append(folded("Pause", pause))
    deleted = action(view, path, "Delete the schedule", {"_method": "DELETE", **match}, back="schedules")
    return f'<div class="actions">{"".join(forms)}{change}{folded("Delete", deleted)}</div>'
