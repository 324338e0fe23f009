"""Actions of the dashboard: forms that are calls of the API, without any script."""

import re
from hashlib import sha256
from html import unescape
from urllib.parse import urlencode, urljoin

import msgspec
import pytest

from jobqueue import Settings
from jobqueue.web.schema import requests

HERE = "http://127.0.0.1"
BROWSER = {
    "Accept": "text/html",
    "User-Agent": "Mozilla/5.0",
    "Origin": HERE,
    "Sec-Fetch-Site": "same-origin",
    "Host": "127.0.0.1",
}
FORM = {**BROWSER, "Content-Type": "application/x-www-form-urlencoded"}


def forms(page, path):
    """Returns the forms of a page that change something: button, address and hidden fields."""
    found = []
    of_forms = r'(?s)<form class="fields" method="post" action="(.*?)">(.*?)</form>'
    for action, inside in re.findall(of_forms, page):
        fields = re.findall(r'type="hidden" name="(.*?)" value="(.*?)"', inside)
        button = unescape(re.search(r"<button.*?>(.*?)</button>", inside)[1])
        address = urljoin(f"{HERE}{path}", unescape(action)).removeprefix(HERE)
        found.append((button, address, {unescape(name): unescape(value) for name, value in fields}))
    return found


async def offered(server, path, headers=BROWSER):
    answer = await server.get(path, headers)
    assert answer.status == 200, answer
    return forms(answer.body.decode(), path)


async def submit(server, path, button, **typed):
    """Submits a form of a page as a browser does."""
    form = next(one for one in await offered(server, path) if one[0] == button)
    return await send(server, form, **typed)


async def send(server, form, **typed):
    _, address, fields = form
    return await server.post(address, urlencode({**fields, **typed}), FORM)


def back(answer, path="/form/a/b/c"):
    """Returns where a redirect leads."""
    assert answer.status == 303, answer
    return urljoin(f"{HERE}{path}", answer.headers["location"]).removeprefix(HERE)


async def bury(server, count=1, **job):
    for _ in range(count):
        id = await server.enqueue(max_attempts=1, **job)
        got = await server.dequeue(queue=job.get("queue", "default"))
        await server.post(f"/jobs/{id}/fail", {"lease": got["lease"], "error": {"type": "Timeout"}})
    return id


# -- one thing --------------------------------------------------------------------------------------


async def test_a_queue_is_paused_with_a_reason_and_resumed(server):
    await server.enqueue(queue="mail")
    answer = await submit(server, "/queues/mail", "Pause", reason="deploy & pray", **{"for": "2h"})
    assert back(answer) == "/queues/mail#done"
    queue = (await server.get("/queues/mail")).json
    assert (queue["paused"], queue["pause"]["reason"]) == (True, "deploy & pray")
    assert "until" in queue["pause"]
    await submit(server, "/queues/mail", "Resume")
    assert not (await server.get("/queues/mail")).json["paused"]


# Each setting of a queue as the form shows it, and as the API does.
FILLED = {
    "lease_for": ("90s", 90), "max_run_for": ("2h", 7200), "max_attempts": ("3", 3), "backoff": ("10s,1m,1h", [10, 60, 3600]),
    "retain_for": ("1d", 86400), "dead_letter": ("7", "7"), "max_jobs": ("7", 7), "max_bytes": ("100", 100),
    "max_in_progress": ("5", 5), "rate.count": ("100", 100), "rate.per": ("1m", 60), "rate.burst": ("0", 0),
    "key_limits.max_in_progress": ("1", 1), "key_limits.ordered": ("true", True), "key_limits.batch": ("10", 10),
    "key_limits.rate.count": ("2", 2), "key_limits.rate.per": ("500.5s", 500.5), "key_limits.rate.burst": ("1", 1),
    "fair_keys": ("true", True), "attributes": ('{"owner": "é"}', {"owner": "é"}),
}  # fmt: skip


def flat(settings, before=""):
    """Returns the settings by their names with dots."""
    found = {}
    for name, value in settings.items():
        if isinstance(value, dict) and name in ("rate", "key_limits"):
            found |= flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


async def shown_settings(server, name="mail"):
    """Returns the form for the settings of a queue, and what a browser would send of its fields."""
    return await shown_form(server, f"/queues/{name}", "Settings", "Change settings")


async def shown_form(server, path, summary, button):
    page = (await server.get(path, BROWSER)).body.decode()
    [form] = [one for one in forms(page, path) if one[0] == button]
    inside = re.search(f"<summary>{summary}</summary>(.*?)</form>", page, re.DOTALL)[1]
    fields = re.findall(r'<label>[^<]*<input name="(.*?)" value="(.*?)"', inside)
    fields += re.findall(r'<textarea name="(.*?)"[^>]*>(.*?)</textarea>', inside, re.DOTALL)
    for choice, options in re.findall(r'<select name="(.*?)">(.*?)</select>', inside):
        fields.append((choice, re.search(r'value="(\w*)" selected', options)[1]))
    return form, {name: unescape(value).replace("\n", "\r\n") for name, value in fields}


async def settings_of(server, name="mail"):
    return (await server.get(f"/queues/{name}")).json["settings"]


async def test_every_setting_of_a_queue_is_set_by_its_form_and_removed_again(server):
    form, empty = await shown_settings(server)
    assert empty == dict.fromkeys(FILLED, "")
    tops = {name.partition(".")[0] for name in FILLED}
    assert tops == set(requests.QueueShape.__struct_fields__)
    answer = await send(server, form, **{name: text for name, (text, _) in FILLED.items()})
    assert back(answer, "/form/queues/mail") == "/queues/mail#done"
    assert flat(await settings_of(server)) == {name: value for name, (_, value) in FILLED.items()}
    form, filled = await shown_settings(server)
    assert {name: text for name, text in filled.items() if name != "attributes"} == {
        name: text for name, (text, _) in FILLED.items() if name != "attributes"
    }
    assert (await send(server, form, **filled)).status == 303  # as it is
    assert flat(await settings_of(server)) == {name: value for name, (_, value) in FILLED.items()}
    form, _ = await shown_settings(server)
    left = {"key_limits.max_in_progress": "1", "rate.count": "100"}
    assert (await send(server, form, **{**empty, **left})).status == 303
    assert await settings_of(server) == {
        "rate": {"count": 100, "per": 1, "burst": 10}, "key_limits": {"max_in_progress": 1}
    }  # fmt: skip
    form, _ = await shown_settings(server)
    assert (await send(server, form, **empty)).status == 303
    assert await settings_of(server) == {}


async def test_settings_that_a_form_does_not_change_are_not_sent(server):
    """Such as attempts without a limit, as SQS has them: null would be the default."""
    server.engine.configure("mail", {"max_attempts": None, "max_jobs": 7})
    form, filled = await shown_settings(server)
    assert filled["max_attempts"] == ""
    assert (await send(server, form, **{**filled, "max_jobs": "", "dead_letter": "d"})).status == 303
    assert await settings_of(server) == {"max_attempts": None, "dead_letter": "d"}
    form, _ = await shown_settings(server)
    assert (await send(server, form, max_jobs="9")).status == 303  # what is not sent at all stays
    assert await settings_of(server) == {"max_attempts": None, "dead_letter": "d", "max_jobs": 9}


@pytest.mark.parametrize(
    "typed",
    [
        {"max_jobs": "many"}, {"max_jobs": "1.5"}, {"lease_for": "soon"}, {"backoff": "10s,x"}, {"backoff": "{"},
        {"attributes": "[1]"}, {"attributes": "{"}, {"rate.per": "1m"}, {"rate.count": "-1"}, {"dead_letter": "a b"},
        {"key_limits.batch": "0"}, {"_given": "[]"}, {"_given": "{"}, {"attributes": "[" * 100_000},
    ],
)  # fmt: skip
async def test_a_mistake_in_a_setting_is_told_and_changes_nothing(server, typed):
    form, filled = await shown_settings(server)
    answer = await send(server, form, **{**filled, **typed})
    assert (answer.status, answer.headers["content-type"]) == (400, "text/html; charset=utf-8")
    assert b'role="alert"' in answer.body
    assert await settings_of(server) == {}


async def test_attributes_of_any_content_stay_as_they_are(server):
    own = '{"</textarea>":"\u202e\\n","n":1e999,"f":1.50,"a":[{"b":"\\u0000"}]}'.encode()
    await server.call("PATCH", "/queues/mail", b'{"attributes":' + own + b"}")
    before = (await server.get("/queues/mail")).body
    form, filled = await shown_settings(server)
    assert (await send(server, form, **filled)).status == 303
    assert (await server.get("/queues/mail")).body == before


async def test_a_stale_edit_of_settings_is_told_and_changes_nothing(server):
    form, filled = await shown_settings(server)
    await server.call("PATCH", "/queues/mail", {"max_jobs": 7})
    answer = await send(server, form, **{**filled, "max_jobs": "9"})
    assert answer.status == 412
    assert b"changed meanwhile" in answer.body
    assert await settings_of(server) == {"max_jobs": 7}


async def test_a_change_of_what_has_changed_meanwhile_is_told(server):
    form = next(one for one in await offered(server, "/queues/mail") if one[0] == "Pause")
    await server.call("PATCH", "/queues/mail", {"max_jobs": 7})
    answer = await send(server, form)
    assert answer.status == 412
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert b"changed meanwhile" in answer.body
    assert not (await server.get("/queues/mail")).json["paused"]


async def test_a_job_is_enqueued_changed_put_forward_and_cancelled(server):
    await submit(server, "/queues/mail", "Enqueue", type="x", payload='{"a":\r\n1}', delay="1h", priority="3")
    job = await server.job(1)
    assert (job["queue"], job["payload"], job["status"]) == ("mail", {"a": 1}, "scheduled")
    changed = await submit(server, "/jobs/1", "Change", priority="5", queue="letters")
    assert back(changed, "/form/a/b") == "/jobs/1#done"
    job = await server.job(1)
    assert (job["queue"], job["priority"]) == ("letters", 5)
    await submit(server, "/jobs/1", "Run now")
    assert (await server.job(1))["status"] == "queued"
    await submit(server, "/jobs/1", "Cancel")
    assert (await server.job(1))["status"] == "cancelled"
    assert [form[0] for form in await offered(server, "/jobs/1")] == ["Enqueue"]


async def test_a_running_job_is_asked_to_stop_or_cancelled_at_once(server):
    await server.enqueue()
    await server.dequeue()
    await submit(server, "/jobs/1", "Ask its consumer to stop")
    assert (await server.job(1))["cancel_requested"]
    await submit(server, "/jobs/1", "Cancel at once")
    assert (await server.job(1))["status"] == "cancelled"


# Each option that a job may have, and texts that HTML and forms could take for their own.
OPTIONS = {
    "type": "mail \"<b>' &amp;", "queue": "q", "priority": -3, "key": "k, 1 é",
    "payload": {"a": ["</textarea>\n\x9b\U000e0001", 1.50]}, "headers": {"h": "<\u202e>"},
    "backoff": {"base": 1, "factor": 3.0, "max": 60, "jitter": 0}, "max_attempts": None,
    "lease_for": 30, "max_run_for": 90.5, "retain_for": 60,
}  # fmt: skip


def typed(page):
    """Returns what the fields of the form that enqueues a job are filled with."""
    form = re.search(r"<summary>Enqueue again</summary>(.*?)</form>", page, re.DOTALL)[1]
    inputs = re.findall(r'<label>.*?<input name="(.*?)" value="(.*?)"', form)
    areas = re.findall(r'<textarea name="(.*?)">(.*?)</textarea>', form, re.DOTALL)
    # A browser sends line breaks as CRLF.
    return {name: unescape(value).replace("\n", "\r\n") for name, value in [*inputs, *areas]}


@pytest.mark.parametrize("tags", [["eu", "a b"], ["a,b", " c"], ["\u202e"]])
async def test_a_job_is_enqueued_again_with_all_its_options_but_its_unique_key(server, tags):
    asked = {**OPTIONS, "tags": tags}
    id = await server.enqueue(**asked, unique_key="one", run_at="2000-01-01T00:00:00Z")
    fields = typed((await server.get(f"/jobs/{id}", BROWSER)).body.decode())
    assert fields["tags"] == ("eu,a b" if "eu" in tags else "")
    answer = await submit(server, f"/jobs/{id}", "Enqueue", **fields)
    assert back(answer) == "/queues/q#done"
    new = await server.job(id + 1)
    assert {name: new[name] for name in asked} == asked
    assert "unique_key" not in new
    edited = {**fields, "payload": "[2]", "delay": "1h"}
    await submit(server, f"/jobs/{id}", "Enqueue", **edited)
    new = await server.job(id + 2)
    assert (new["payload"], new["status"], new["type"]) == ([2], "scheduled", OPTIONS["type"])


async def test_a_job_that_a_form_cannot_have_is_not_enqueued_again_by_one(server):
    await server.enqueue(payload="y" * 3000)
    await server.enqueue(payload=list(range(500)))  # too long only as it is shown
    await server.post("/queues/q/enqueue?raw=1", b"\xff", {"Content-Type": "image/png"})
    await server.enqueue(key="\u202e")
    for id, why in (
        (1, "payload is too long"),
        (2, "payload is too long"),
        (3, "payload is not JSON"),
        (4, "type or key"),
    ):
        page = (await server.get(f"/jobs/{id}", BROWSER)).body.decode()
        assert f"No form to enqueue it again: its {why}" in page
        assert "Enqueue" not in [form[0] for form in forms(page, f"/jobs/{id}")]


async def test_options_beside_the_fields_of_a_form_are_checked_as_all_others(server):
    for options in ("{", "[]", "1", '{"backoff":"x"}', '{"nothing":1}', "[" * 100_000):
        fields = {"type": "x", "_options": options}
        assert (await server.post("/form/queues/q/enqueue", urlencode(fields), FORM)).status == 400, options


async def test_a_dead_job_is_redriven(server):
    id = await bury(server)
    await submit(server, f"/jobs/{id}", "Redrive")
    assert (await server.job(id))["status"] == "queued"


# A schedule whose fields all have values, as the form shows them, and as the API does.
PLANNED = {
    "cron": ("30 2 * * *", "30 2 * * *"), "timezone": ("Europe/Berlin", "Europe/Berlin"), "every": ("", None),
    "starts_at": ("2027-02-01T00:00:00.000Z",) * 2, "ends_at": ("2028-02-01T00:00:00.000Z",) * 2,
    "jitter": ("1m", 60), "misfire": ("all", "all"), "grace": ("2h", 7200), "overlap": ("queue", "queue"),
    "job.type": ("<report>", "<report>"), "job.queue": ("mail", "mail"), "job.priority": ("3", 3),
    "job.payload": ('{\r\n  "a": "é"\r\n}', {"a": "é"}),
}  # fmt: skip
# What the form has no field for.
KEPT = {"group": "shop", "job": {"tags": ["eu"], "max_attempts": 7, "headers": {"x": "1"}, "key": "k"}}


async def shown_plan(server, name="nightly"):
    return await shown_form(server, f"/schedules/{name}", "Change", "Change the schedule")


async def plan_of(server, name="nightly"):
    """Returns a schedule, and its fields by the names that they have in the form."""
    known = (await server.get(f"/schedules/{name}")).json
    flat = {field: known.get(field) for field in PLANNED if not field.startswith("job.")}
    return known, flat | {f"job.{field}": value for field, value in known["job"].items()}


async def test_every_field_of_a_schedule_is_changed_by_its_form_and_all_else_stays(server):
    plain = {"cron": "@daily", **KEPT, "job": {**KEPT["job"], "type": "x"}, "paused": True}
    await server.call("PUT", "/schedules/nightly", plain)
    form, filled = await shown_plan(server)
    assert filled.keys() == PLANNED.keys()
    answer = await send(server, form, **{name: text for name, (text, _) in PLANNED.items()})
    assert back(answer, "/form/schedules/nightly") == "/schedules/nightly#done"
    known, fields = await plan_of(server)
    assert {name: fields[name] for name in PLANNED} == {name: value for name, (_, value) in PLANNED.items()}
    assert (known["group"], known["paused"]) == ("shop", True)
    assert {name: known["job"][name] for name in KEPT["job"]} == KEPT["job"]
    form, filled = await shown_plan(server)
    assert filled == {name: text for name, (text, _) in PLANNED.items()}
    before = known
    assert (await send(server, form, **filled)).status == 303
    known, _ = await plan_of(server)
    assert known == before


async def test_an_emptied_field_of_a_schedule_gets_its_default(server):
    full = {
        "cron": "30 2 * * *", "timezone": "Europe/Berlin", "starts_at": "2027-02-01T00:00:00Z", "grace": "2h",
        "jitter": "1m", "job": {"type": "x", "queue": "mail", "priority": 3, "payload": {"a": 1}},
    }  # fmt: skip
    await server.call("PUT", "/schedules/nightly", full)
    form, filled = await shown_plan(server)
    kept = ("cron", "job.type", "misfire", "overlap")
    emptied = {name: text if name in kept else "" for name, text in filled.items()}
    assert (await send(server, form, **emptied)).status == 303
    known, _ = await plan_of(server)
    assert (known["timezone"], known["jitter"]) == ("UTC", 0)
    assert "grace" not in known
    assert "starts_at" not in known
    assert (known["job"]["queue"], known["job"]["priority"], known["job"]["payload"]) == ("default", 0, None)
    form, filled = await shown_plan(server)
    assert (await send(server, form, **{**filled, "cron": "", "timezone": "", "every": "15m"})).status == 303
    known, _ = await plan_of(server)
    assert (known["every"], "cron" in known) == (900, False)


@pytest.mark.parametrize(
    "typed",
    [
        {"cron": "x"}, {"every": "15m"}, {"cron": ""}, {"timezone": "Nowhere"}, {"job.type": ""},
        {"job.priority": "many"}, {"job.payload": "{"}, {"misfire": "never"}, {"_plan": "[]"}, {"_plan": "{"},
        {"_plan": '{"job":5}'}, {"job.queue": "a/b"},
    ],
)  # fmt: skip
async def test_a_wrong_field_of_a_schedule_is_told_and_changes_nothing(server, typed):
    await server.call("PUT", "/schedules/nightly", {"cron": "@daily", "job": {"type": "x"}})
    before = (await server.get("/schedules/nightly")).json
    form, filled = await shown_plan(server)
    answer = await send(server, form, **{**filled, **typed})
    assert (answer.status, answer.headers["content-type"]) == (400, "text/html; charset=utf-8")
    assert b'role="alert"' in answer.body
    assert (await server.get("/schedules/nightly")).json == before


async def test_a_stale_edit_of_a_schedule_is_told_and_changes_nothing(server):
    await server.call("PUT", "/schedules/nightly", {"cron": "@daily", "job": {"type": "x"}})
    form, filled = await shown_plan(server)
    await server.call("PUT", "/schedules/nightly", {"cron": "@hourly", "job": {"type": "x"}})
    answer = await send(server, form, **{**filled, "job.priority": "9"})
    assert answer.status == 412
    assert b"changed meanwhile" in answer.body
    known, _ = await plan_of(server)
    assert (known["cron"], known["job"]["priority"]) == ("@hourly", 0)


async def test_a_payload_of_a_schedule_that_is_not_json_stays_and_one_that_is_too_long_has_no_form(server):
    job = {"type": "x", "content_type": "text/plain", "payload": "\u202e</input>\r\n"}
    await server.call("PUT", "/schedules/nightly", {"cron": "@daily", "job": job})
    before = (await server.get("/schedules/nightly")).json
    assert (
        b"Its payload is not JSON, and stays as it is."
        in (await server.get("/schedules/nightly", BROWSER)).body
    )
    form, filled = await shown_plan(server)
    assert "job.payload" not in filled
    assert (await send(server, form, **{**filled, "job.priority": "4"})).status == 303
    known, _ = await plan_of(server)
    assert known["job"] == {**before["job"], "priority": 4}
    await server.call(
        "PUT", "/schedules/nightly", {"cron": "@daily", "job": {"type": "x", "payload": "y" * 20_000}}
    )
    page = (await server.get("/schedules/nightly", BROWSER)).body
    assert b"No form to change it" in page
    assert b"Change the schedule" not in page


async def test_a_schedule_is_run_paused_resumed_and_deleted(server):
    await server.call("PUT", "/schedules/nightly", {"cron": "@daily", "job": {"type": "report"}})
    await submit(server, "/schedules/nightly", "Run now")
    assert (await server.job(1))["type"] == "report"
    await submit(server, "/schedules/nightly", "Pause", reason="holidays")
    assert (await server.get("/schedules/nightly")).json["pause"]["reason"] == "holidays"
    await submit(server, "/schedules/nightly", "Resume")
    assert not (await server.get("/schedules/nightly")).json["paused"]
    assert (
        back(await submit(server, "/schedules/nightly", "Delete the schedule"), "/form/a/b")
        == "/schedules#done"
    )
    assert (await server.get("/schedules/nightly")).status == 404


# -- many -------------------------------------------------------------------------------------------


async def test_a_failing_group_is_redriven_after_its_count_was_shown(server):
    await bury(server, 3, type="mail", queue="q")
    await bury(server, 2, type="other", queue="q")
    [first, _] = [
        one for one in await offered(server, "/jobs/groups?by=queue,type,error") if one[0] == "Redrive…"
    ]
    shown = await send(server, first)
    assert shown.status == 200
    assert b"3 jobs match" in shown.body
    assert (await server.get("/queues/q")).json["jobs"]["dead"] == 5
    [confirm] = forms(shown.body.decode(), first[1])
    assert confirm[0] == "Redrive all 3 that match"
    done = await send(server, confirm)
    assert b"3 of 3 jobs" in done.body
    jobs = (await server.get("/queues/q")).json["jobs"]
    assert (jobs["dead"], jobs["queued"]) == (2, 3)


@pytest.mark.parametrize("verb", ["Purge", "Cancel"])
async def test_what_cannot_be_undone_wants_the_number_of_jobs(server, verb):
    for _ in range(3):
        await server.enqueue(queue="q", tags=["old"])
    await server.enqueue(queue="q")
    path = "/jobs?queue=q&tag=old"
    shown = await submit(server, path, f"{verb}…")
    [confirm] = forms(shown.body.decode(), "/form/queues/q/purge")
    for typed in ({}, {"_typed": "2"}, {"_typed": ""}):
        answer = await send(server, confirm, **typed)
        assert answer.status == 400
        assert b"nothing was done" in answer.body
    bare = (confirm[0], confirm[1], {"all": "1"})
    assert (await send(server, bare)).status == 400
    assert (await server.get("/queues/q")).json["jobs"]["queued"] == 4
    assert b"3 of 3 jobs" in (await send(server, confirm, _typed="3")).body
    assert (await server.get("/queues/q")).json["jobs"]["queued"] == 1


async def test_jobs_that_match_are_moved(server):
    for type in ("a", "a", "b"):
        await server.enqueue(queue="q", type=type)
    shown = await submit(server, "/jobs?queue=q&type=a", "Move…", to="r")
    [confirm] = forms(shown.body.decode(), "/form/queues/q/move")
    assert b"2 of 2 jobs" in (await send(server, confirm)).body
    assert (await server.get("/queues/r")).json["jobs"]["queued"] == 2


async def test_calls_that_the_filter_rules_out_are_not_offered(server):
    buttons = {one[0] for one in await offered(server, "/jobs?queue=q&status=dead")}
    assert "Redrive…" in buttons
    assert "Run now…" not in buttons
    assert not await offered(server, "/jobs?queue=a,b")
    assert not await offered(server, "/jobs")


# -- selected jobs ----------------------------------------------------------------------------------


def boxes(page):
    return re.findall(r'<input type="checkbox" name="id" value="(\d+)" form="selected"', page)


async def select(server, path, verb, ids, headers=FORM):
    """Sends the form for selected jobs of a page."""
    shown = (await server.get(path, BROWSER)).body.decode()
    form = re.search(
        r'<form class="fields selected" id="selected" method="post" action="(.*?)">(.*?)</form>', shown
    )
    back = unescape(re.search(r'name="_back" value="(.*?)"', form[2])[1])
    assert f'<button name="_verb" value="{verb}">' in form[2]
    assert set(map(str, ids)) <= set(boxes(shown))
    address = urljoin(f"{HERE}{path}", form[1]).removeprefix(HERE)
    fields = [("_back", back), ("_verb", verb), *(("id", str(id)) for id in ids)]
    return await server.post(address, urlencode(fields), headers)


async def test_selected_jobs_are_redriven_run_and_cancelled(server):
    dead = [await bury(server, queue="a"), await bury(server, queue="b")]
    later = await server.enqueue(queue="a", delay="1h")
    answer = await select(server, "/jobs?status=dead", "redrive", dead)
    assert back(answer, "/form/jobs") == "/jobs?status=dead#done"
    await select(server, "/queues/a", "run_now", [later])
    assert [(await server.job(id))["status"] for id in (*dead, later)] == ["queued"] * 3
    await select(server, "/jobs", "cancel", [dead[0], later])
    assert [(await server.job(id))["status"] for id in (*dead, later)] == ["cancelled", "queued", "cancelled"]


async def test_a_selected_job_that_refuses_is_named_and_keeps_no_other_one(server):
    dead, waiting = await bury(server), await server.enqueue()
    answer = await select(server, "/jobs", "redrive", [dead, waiting])
    assert answer.status == 200
    assert b"Done: 1 of 2 jobs" in answer.body
    assert f">{waiting}</a>".encode() in answer.body
    assert (await server.job(dead))["status"] == "queued"


async def test_a_form_that_selects_nothing_or_too_much_is_told(server):
    await server.enqueue()
    for fields in ([("_verb", "redrive")], [("id", "1")], [("_verb", "purge"), ("id", "1")],
                   [("_verb", "cancel"), ("id", "x")],
                   [("_verb", "cancel"), *(("id", str(id)) for id in range(1001))]):  # fmt: skip
        answer = await server.post("/form/jobs", urlencode(fields), FORM)
        assert answer.status in (400, 404)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert (await server.job(1))["status"] == "queued"


async def test_a_form_is_counted_as_the_call_that_it_makes(server):
    await submit(server, "/queues/mail", "Pause")
    await server.post("/form/nothing", "", FORM)
    metrics = (await server.get("/metrics")).body.decode()
    counted = re.findall(
        r'jobqueue_http_requests_total\{operation="(pause_queue|.*form.*)",.*\} (.*)', metrics
    )
    assert sorted(counted) == [("pause_queue", "1.0"), ("refuse_form", "1.0")]


async def test_a_form_without_a_version_changes_any_version(server):
    await server.call("PATCH", "/queues/mail", {"max_jobs": 7})
    answer = await server.post("/form/queues/mail/pause", urlencode({"_if_match": "*"}), FORM)
    assert answer.status == 303


# -- who may, and from where ------------------------------------------------------------------------


async def test_only_groups_that_a_filter_selects_exactly_are_redriven(server):
    """A group without an error would be redriven with all others of its type."""
    await bury(server, 2, type="mail")
    lost = await server.enqueue(max_attempts=1, type="mail")
    await server.dequeue(lease_for=1)
    server.clock.advance("2s")
    server.engine.tick()
    await bury(server, type="a,b")
    await bury(server, type="mail", tags=["eu"])
    page = "/jobs/groups?by=queue,type,error"
    [only] = [form for form in await offered(server, page) if form[0] == "Redrive…"]
    assert (only[2]["type"], only[2]["error"]) == ("mail", "Timeout")
    [of_tag] = [form for form in await offered(server, f"{page}&tag=eu") if form[0] == "Redrive…"]
    assert of_tag[2]["tag"] == "eu"
    assert (await server.job(lost))["status"] == "dead"


@pytest.mark.parametrize("name", ["redrive", "purge"])
async def test_a_queue_may_be_called_as_a_bulk_call(server, name):
    await server.call("PATCH", f"/queues/{name}", {"max_jobs": 9})
    answer = await submit(server, f"/queues/{name}", "Change settings", max_jobs="7")
    assert back(answer, f"/form/queues/{name}") == f"/queues/{name}#done"
    assert (await server.get(f"/queues/{name}")).json["settings"]["max_jobs"] == 7


async def test_a_payload_that_is_nested_too_deep_is_a_mistake(server):
    await server.enqueue(queue="mail")
    answer = await submit(server, "/queues/mail", "Enqueue", type="x", payload="[" * 100_000)
    assert answer.status == 400


async def test_a_form_of_a_page_of_another_origin_changes_nothing(server):
    form = next(one for one in await offered(server, "/queues/mail") if one[0] == "Pause")
    for more in (
        {"Origin": "http://other.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "null"},
        {"Host": "other.example", "Origin": "http://other.example"},
    ):
        answer = await server.post(form[1], urlencode(form[2]), {**FORM, **more})
        assert answer.status == 403, more
    assert not (await server.get("/queues/mail")).json["paused"]


async def test_only_calls_that_pages_offer_may_be_made_by_a_form(server):
    for path, fields in (
        ("/form/import", {}), ("/form/jobs/enqueue", {"type": "x"}), ("/form/jobs/1/conclude", {}),
        ("/form/queues/q", {"_method": "DELETE"}), ("/form/queues/q/export", {"_method": "GET"}), ("/form/", {}),
        ("/form/form/queues/q/pause", {}), ("/form/login", {}), ("/form/queues/q/pause/", {}),
    ):  # fmt: skip
        assert (await server.post(path, urlencode(fields), FORM)).status == 404, path
    assert (await server.get("/form/queues/q/pause", BROWSER)).status == 404


async def test_a_form_leads_back_to_no_page_of_another_server(server):
    form = next(one for one in await offered(server, "/queues/mail") if one[0] == "Pause")
    for at in (
        "//other.example/",
        "https://other.example",
        "\\\\other.example",
        "jobs/..//..//x",
        "queues/../../x",
        "a\r\nX: y",
    ):
        await server.post("/queues/mail/resume")
        fields = {"_back": at}
        answer = await server.post(form[1], urlencode(fields), FORM)
        assert back(answer) == "/#done", at


async def test_a_mistake_in_a_field_is_told_on_a_page(server):
    for typed in ({"type": "x", "payload": '1,"queue":"other"'}, {"type": "x", "delay": "soon"}, {}):
        answer = await submit(server, "/queues/mail", "Enqueue", **typed)
        assert answer.status == 400
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert b'role="alert"' in answer.body
    assert (await server.get("/stats")).json["queues"] == 0


TOKENS = {"reader": ["read"], "boss": ["admin"], "producer": ["read", "enqueue"]}


@pytest.fixture
def token_settings(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(
        "".join(
            f'[{name}]\ndigest = "{sha256(name.encode()).hexdigest()}"\nrights = {rights}\n'
            for name, rights in TOKENS.items()
        )
    )
    return Settings(first_id=1, tokens_file=str(path))


class TestWithTokens:
    @pytest.fixture
    def settings(self, token_settings):
        return token_settings

    async def test_actions_that_the_token_may_not_do_are_absent_and_refused(self, server):
        def by(name):
            return {**FORM, "Authorization": f"Bearer {name}"}

        made = await server.call("POST", "/queues/q/enqueue", {"type": "x"}, {"Authorization": "Bearer boss"})
        assert made.status == 201
        plan = {"cron": "@daily", "job": {"type": "x"}}
        made = await server.call("PUT", "/schedules/s", plan, {"Authorization": "Bearer boss"})
        assert made.status == 201
        paths = ("/queues/q", "/jobs/1", "/jobs?queue=q", "/jobs/groups?by=queue,type,error", "/schedules/s")
        count = {}
        for name in TOKENS:
            count[name] = [len(await offered(server, path, by(name))) for path in paths]
        assert count == {"reader": [0, 0, 0, 0, 0], "boss": [8, 3, 5, 0, 4], "producer": [1, 3, 0, 0, 0]}
        fields = urlencode({"_method": "PUT", "_plan": msgspec.json.encode(plan).decode(), "cron": "@hourly"})
        for name in ("reader", "producer"):
            assert (await server.post("/form/schedules/s", fields, by(name))).status == 403
        assert (await server.post("/form/schedules/s", fields, by("boss"))).status == 303
        answer = await server.post("/form/queues/q/pause", "", by("reader"))
        assert answer.status == 403
        assert b"not allowed" in answer.body
        assert (await server.post("/form/queues/q/pause", "", FORM)).status == 401
        assert (await server.post("/form/queues/q/pause", "reason=x", by("boss"))).status == 303
        assert "q is paused by boss since " in re.sub(
            "<.*?>", "", (await server.get("/", by("boss"))).body.decode()
        )
        selected = urlencode({"_verb": "cancel", "id": "1"})
        assert (await server.post("/form/jobs", selected, by("reader"))).status == 403
        assert (await server.post("/form/jobs", selected, by("producer"))).status == 303
