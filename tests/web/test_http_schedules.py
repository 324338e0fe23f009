"""Schedules over HTTP. tests/engine/test_schedules.py has their rules."""

import json

import pytest
from leasing import later
from serving import check_problem

from jobqueue import Settings
from jobqueue.web.access.tokens import digest_of

DAILY = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "job": {"type": "report", "queue": "mail"}}
EVERY = {"every": "15m", "job": {"type": "x"}}


async def put(server, name="report", body=None, status=201, headers=None):
    answer = await server.call("PUT", f"/schedules/{name}", DAILY if body is None else body, headers)
    assert answer.status == status, answer
    return answer


async def names(server, query=""):
    return [each["name"] for each in (await server.get(f"/schedules{query}")).json["schedules"]]


# -- put, get, list, delete ------------------------------------------------------------------------------


async def test_a_schedule_is_shown_with_what_it_means_and_its_next_instants_in_utc(server):
    made = await put(server)
    assert made.headers["location"] == "/schedules/report"
    assert made.json == {
        "name": "report", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "means": "At 02:30 every day",
        "paused": False, "next_at": "2027-01-16T01:30:00.000Z",
        "next": [f"2027-01-{day}T01:30:00.000Z" for day in range(16, 21)],
        "misfire": "once", "overlap": "skip", "jitter": 0, "created_at": "2027-01-15T08:00:00.000Z",
        "etag": '"1"', "job": {"type": "report", "queue": "mail", "priority": 0, "payload": None},
    }  # fmt: skip
    shown = await server.get("/schedules/report")
    assert (shown.json, shown.headers["etag"]) == (made.json, made.headers["etag"])
    assert len((await server.get("/schedules/report?next=10")).json["next"]) == 10
    assert (await server.get("/schedules/report?next=0")).json["next"] == []


async def test_all_options_come_back_as_they_were_given(server):
    body = {
        "every": "15m", "group": "shop", "misfire": "all", "grace": "2h", "overlap": "queue", "jitter": "30s",
        "starts_at": "2027-02-01T00:00:00Z", "ends_at": "2027-03-01T00:00:00Z", "paused": True,
        "job": {"type": "x", "queue": "q", "priority": 3, "payload": {"a": [1]}, "expires_in": 60,
                "lease_for": 30, "max_attempts": None, "backoff": [1, 2], "retain_for": 5, "key": "k",
                "tags": ["t"], "headers": {"h": "1"}},
    }  # fmt: skip
    made = (await put(server, "all", body)).json
    expected = {
        **body, "every": 900, "grace": 7200, "jitter": 30, "starts_at": "2027-02-01T00:00:00.000Z",
        "ends_at": "2027-03-01T00:00:00.000Z",
    }  # fmt: skip
    assert {name: made[name] for name in expected} == expected
    assert made["means"] == "Every 15 minutes"
    assert made["pause"] == {"at": "2027-01-15T08:00:00.000Z"}
    assert "next_at" not in made
    assert made["next"][0] == "2027-02-01T00:00:00.000Z"


async def test_what_was_shown_can_be_sent_again_and_changes_nothing(server):
    await put(server, "a", {**EVERY, "jitter": 3})
    await later(server, "1h")
    shown = (await server.get("/schedules/a")).json
    again = await put(server, "a", shown, 200)
    assert again.json["etag"] == shown["etag"] == '"1"'
    exported = (await server.get("/schedules")).json
    answer = await server.call("POST", "/schedules/import", exported)
    assert answer.json == {"created": [], "changed": [], "unchanged": ["a"], "deleted": []}


async def test_a_list_is_by_name_in_pages_and_filtered(server):
    await put(server, "b", {**EVERY, "group": "shop"})
    await put(server, "a", EVERY)
    await put(server, "c", {**DAILY, "group": "shop", "paused": True})
    assert await names(server) == ["a", "b", "c"]
    assert await names(server, "?group=shop") == ["b", "c"]
    assert await names(server, "?queue=mail,other") == ["c"]
    assert await names(server, "?paused=1") == ["c"]
    assert await names(server, "?paused=0") == ["a", "b"]
    page = (await server.get("/schedules?limit=2")).json
    assert ([each["name"] for each in page["schedules"]], page["next"]) == (["a", "b"], "b")
    page = (await server.get("/schedules?limit=2&cursor=b")).json
    assert [each["name"] for each in page["schedules"]] == ["c"]
    assert "next" not in page


async def test_a_page_of_large_schedules_ends_early(server):
    for name in ("a", "b", "c"):
        await put(server, name, {"every": 60, "job": {"type": "x", "payload": "x" * 1_000_000}})
    page = (await server.get("/schedules")).json
    assert ([each["name"] for each in page["schedules"]], page["next"]) == (["a", "b"], "b")


async def test_a_schedule_can_be_deleted(server):
    await put(server)
    deleted = await server.call("DELETE", "/schedules/report")
    assert (deleted.status, deleted.json["name"]) == (200, "report")
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("GET", "/history"), ("POST", "/run"), ("POST", "/pause"), ("POST", "/resume")
    ):  # fmt: skip
        check_problem(await server.call(method, f"/schedules/report{path}"), 404, "schedule_not_found")


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"job": {"type": "x"}}, "missing_field", "cron"), ({"every": 60}, "missing_field", "job"),
        ({**EVERY, "cron": "* * * * *"}, "invalid_field", "cron"),
        ({**DAILY, "cron": "0 0 31 2 *"}, "invalid_field", "cron"),
        ({**DAILY, "cron": "x"}, "invalid_field", "cron"),
        ({**DAILY, "timezone": "Europe/Berlyn"}, "invalid_field", "timezone"),
        ({**EVERY, "timezone": "Europe/Berlin"}, "invalid_field", "timezone"),
        ({**DAILY, "timezone": "x" * 100_000}, "invalid_field", "timezone"),
        ({**DAILY, "cron": "1," * 100_000}, "invalid_field", "cron"),
        ({**EVERY, "every": "500ms"}, "invalid_field", "every"),
        ({**EVERY, "jitter": "25h"}, "invalid_field", "jitter"),
        ({**EVERY, "misfire": "never"}, "invalid_field", "misfire"),
        ({**EVERY, "overlap": "x"}, "invalid_field", "overlap"),
        ({**EVERY, "starts_at": "2027-02-01T00:00:00Z", "ends_at": "2027-01-01T00:00:00Z"},
         "invalid_field", "ends_at"),
        ({**EVERY, "job": {}}, "missing_field", "type"), ({**EVERY, "job": "x"}, "invalid_field", "job"),
        ({**EVERY, "job": {"type": "x", "delay": 5}}, "invalid_field", "job"),
        ({**EVERY, "job": {"type": "x", "run_at": "2027-02-01T00:00:00Z"}}, "invalid_field", "job"),
        ({**EVERY, "job": {"type": "x", "unique_key": "k"}}, "invalid_field", "unique_key"),
        ({**EVERY, "job": {"type": "x", "queue": "a b"}}, "invalid_field", "queue"),
        ({**EVERY, "job": {"type": "x", "priorty": 1}}, "unknown_field", "priorty"),
        ({**EVERY, "crom": "x"}, "unknown_field", "crom"), ({**EVERY, "name": "other"}, "invalid_field", "name"),
        ({**EVERY, "group": ""}, "invalid_field", "group"),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused(server, body, code, field):
    answer = await server.call("PUT", "/schedules/s", body)
    check_problem(answer, 400, code, field=field)
    assert await names(server) == []


async def test_names_of_calls_and_bad_names_are_refused(server):
    for name in ("export", "a%20b", "-x"):
        check_problem(
            await server.call("PUT", f"/schedules/{name}", EVERY), 400, "invalid_field", field="name"
        )
    check_problem(await server.call("PUT", "/schedules/preview", EVERY), 405, "method_not_allowed")


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_schedules=1)])
async def test_the_limit_of_schedules_is_named(server):
    await put(server)
    answer = await server.call("PUT", "/schedules/b", EVERY)
    check_problem(answer, 429, "too_many_schedules", limit=1, setting="JOBQUEUE_MAX_SCHEDULES")


async def test_a_group_of_many_is_put_at_once_or_refused(server):
    def many(bad=None):
        schedules = [{**EVERY, "name": f"s{n}"} for n in range(300)]
        if bad is not None:
            schedules[bad] = {**DAILY, "name": "bad", "cron": "0 0 31 2 *"}
        return {"schedules": schedules}

    refused = await server.call("PUT", "/schedules?group=g", many(bad=270))
    check_problem(refused, 400, "invalid_field", field="cron", index=270)
    assert await names(server) == []
    changes = (await server.call("PUT", "/schedules?group=g", many())).json
    assert (len(changes["created"]), len(await names(server))) == (300, 300)


# -- explain ----------------------------------------------------------------------------------------------

HOURLY = {"every": "1h", "job": {"type": "x", "queue": "q"}}


async def reasons(server, name="h"):
    answer = await server.get(f"/schedules/{name}/explain")
    assert answer.status == 200, answer
    assert answer.json["name"] == name
    return {reason["code"]: reason for reason in answer.json["reasons"]}


async def test_a_schedule_that_nothing_keeps_has_no_reasons(server):
    await put(server, "h", HOURLY)
    assert (await server.get("/schedules/h/explain")).json == {
        "name": "h", "next_at": "2027-01-15T09:00:00.000Z", "reasons": [],
    }  # fmt: skip
    check_problem(await server.get("/schedules/nobody/explain"), 404, "schedule_not_found")
    check_problem(await server.get("/schedules/h/explain?x=1"), 400, "unknown_field")


async def test_a_pause_is_explained_and_later_what_it_skipped(server):
    await put(server, "h", HOURLY)
    await server.post("/schedules/h/pause", {"reason": "deploy"})
    found = await reasons(server)
    assert found == {"paused": {
        "code": "paused", "detail": "it is paused since 2027-01-15T08:00:00.000Z: deploy; resume it",
    }}  # fmt: skip
    await later(server, 2 * 3600)
    await server.post("/schedules/h/resume")
    assert (await reasons(server))["skipped_paused"]["detail"] == (
        "its instants from 2027-01-15T09:00:00.000Z to 2027-01-15T10:00:00.000Z gave no job: it was paused: deploy"
    )


async def test_the_first_and_the_last_instant_are_explained(server):
    begins, ends = "2027-01-15T12:00:00.000Z", "2027-01-15T12:30:00.000Z"
    await put(server, "h", {**HOURLY, "starts_at": begins, "ends_at": ends})
    assert await reasons(server) == {
        "not_started": {"code": "not_started", "detail": f"its starts_at is {begins}", "until": begins}
    }
    await later(server, 4 * 3600)
    answer = (await server.get("/schedules/h/explain")).json
    assert answer == {"name": "h", "reasons": [{"code": "ended", "detail": f"its ends_at is {ends}"}]}


async def test_an_unfinished_job_is_explained_and_that_it_skipped_an_instant(server):
    await put(server, "h", HOURLY)
    id = (await server.post("/schedules/h/run")).json["id"]
    assert await reasons(server) == {"overlap": {
        "code": "overlap", "detail": f"its job {id} is queued; with overlap skip no further one is made",
    }}  # fmt: skip
    await later(server, 3600)
    assert (await reasons(server))["skipped_overlap"]["detail"] == (
        f"its last instant, 2027-01-15T09:00:00.000Z, gave no job: an earlier job is not finished (job {id})"
    )
    await server.call("DELETE", f"/jobs/{id}")
    assert set(await reasons(server)) == {"skipped_overlap"}
    await later(server, 3600)
    assert "skipped_overlap" not in await reasons(server)


async def test_a_unique_key_of_the_job_itself_is_explained(server):
    job = {"type": "x", "queue": "q", "unique_key": "k"}
    await put(server, "h", {**HOURLY, "overlap": "allow", "job": job})
    id = await server.enqueue(queue="q", unique_key="k")
    assert (await reasons(server))["overlap"]["detail"] == (
        f"job {id} is queued and has the unique key of the next one, which is not made"
    )


async def test_a_full_queue_and_a_paused_one_are_explained(server):
    await server.call("PATCH", "/queues/q", {"max_jobs": 1})
    await server.enqueue(queue="q")
    await put(server, "h", {**HOURLY, "overlap": "allow"})
    await server.post("/queues/q/pause", {"for": "2h", "reason": "lunch"})
    assert await reasons(server) == {"queue_paused": {
        "code": "queue_paused", "until": "2027-01-15T10:00:00.000Z",
        "detail": "the queue q is paused until 2027-01-15T10:00:00.000Z: lunch; its jobs are made, and wait there",
    }}  # fmt: skip
    await later(server, 3600)
    blocked = (await reasons(server))["blocked"]
    assert blocked["detail"].startswith("its instant 2027-01-15T09:00:00.000Z has no job yet: the queue q")
    assert blocked["until"] == "2027-01-15T09:00:01.000Z"
    await later(server, 3600 - 1)
    await later(server, 2)
    missed = (await reasons(server))["missed"]
    assert "2027-01-15T09:00:00.000Z, gave no job: " in missed["detail"]


async def test_a_clock_that_was_set_back_is_explained(server):
    await put(server, "h", {**HOURLY, "overlap": "allow"})
    await later(server, 3600)
    server.clock.wall_jump(-1800)
    server.engine.tick()
    assert (await reasons(server))["clock_set_back"]["until"] == "2027-01-15T09:00:00.000Z"


async def test_a_server_that_accepts_no_new_jobs_is_explained(server):
    await put(server, "h", HOURLY)
    server.engine.stop_waiting()
    assert (await reasons(server))["refused"]["detail"] == (
        "new jobs are refused at present: the server is stopping and accepts no new jobs"
    )


# -- ETag --------------------------------------------------------------------------------------------------


async def test_if_match_refuses_a_schedule_that_has_changed(server):
    tag = (await put(server)).headers["etag"]
    await put(server, body=EVERY, status=200, headers={"If-Match": tag})
    for method, path, body in (
        ("PUT", "", DAILY), ("DELETE", "", None), ("POST", "/pause", None), ("POST", "/resume", None)
    ):  # fmt: skip
        answer = await server.call(method, f"/schedules/report{path}", body, {"If-Match": tag})
        check_problem(answer, 412, "precondition_failed")
    answer = await server.call("PUT", "/schedules/new", DAILY, {"If-Match": tag})
    check_problem(answer, 412, "precondition_failed")
    assert await names(server) == ["report"]


# -- instants -----------------------------------------------------------------------------------------------


async def test_an_instant_makes_a_job_and_an_entry_of_the_history(server):
    await put(server, "s", {"every": "15m", "overlap": "skip", "job": {"type": "x", "payload": {"n": 1}}})
    await later(server, "15m")
    job = (await server.get("/jobs/1")).json
    assert (job["type"], job["payload"], job["unique_key"]) == ("x", {"n": 1}, "schedule:s")
    assert job["headers"] == {"schedule": "s", "due-at": "2027-01-15T08:15:00.000Z"}
    await later(server, "15m")
    history = (await server.get("/schedules/s/history")).json["history"]
    assert history == [
        {"due_at": "2027-01-15T08:30:00.000Z", "at": "2027-01-15T08:30:00.000Z",
         "outcome": "skipped_overlap", "job": 1, "reason": "an earlier job is not finished"},
        {"due_at": "2027-01-15T08:15:00.000Z", "at": "2027-01-15T08:15:00.000Z", "outcome": "enqueued",
         "job": 1},
    ]  # fmt: skip
    shown = (await server.get("/schedules/s")).json
    assert shown["last"] == history[0]
    assert shown["etag"] == '"1"'  # instants are no changes


async def test_run_now_answers_as_an_enqueue_does(server):
    await put(server)
    first, again = await server.post("/schedules/report/run"), await server.post("/schedules/report/run")
    assert (first.status, first.json["id"], first.headers["location"]) == (201, 1, "/jobs/1")
    assert (again.status, again.json["id"], again.json["duplicate"]) == (200, 1, True)
    outcomes = [each["outcome"] for each in (await server.get("/schedules/report/history")).json["history"]]
    assert outcomes == ["skipped_overlap", "manual"]


async def test_pause_and_resume(server):
    await put(server, "s", EVERY)
    paused = (await server.post("/schedules/s/pause", {"reason": "deploy"})).json
    assert (paused["paused"], paused["pause"]) == (
        True, {"at": "2027-01-15T08:00:00.000Z", "reason": "deploy"},
    )  # fmt: skip
    await later(server, "40m")
    assert (await server.get("/jobs/count")).json == {"count": 0}
    resumed = (await server.post("/schedules/s/resume")).json
    assert (resumed["paused"], resumed["next_at"]) == (False, "2027-01-15T08:45:00.000Z")
    assert (resumed["last"]["outcome"], resumed["last"]["reason"]) == ("skipped_paused", "deploy")


async def test_what_blocks_an_instant_is_shown(server):
    await server.call("PATCH", "/queues/default", {"max_jobs": 1})
    await server.enqueue()
    await put(server, "s", EVERY)
    await later(server, "15m")
    assert "limit" in (await server.get("/schedules/s")).json["blocked"]


# -- groups, preview ------------------------------------------------------------------------------------------


async def test_a_group_is_replaced_at_once_after_a_look_at_what_would_change(server):
    await put(server, "a", {**EVERY, "group": "shop"})
    await put(server, "b", {**EVERY, "group": "shop"})
    await put(server, "mine", EVERY)
    body = {"schedules": [{**EVERY, "name": "a", "every": "1h"}, {**EVERY, "name": "n"}]}
    expected = {"created": ["n"], "changed": ["a"], "unchanged": [], "deleted": ["b"]}
    dry = await server.call("PUT", "/schedules?group=shop&dry_run=1", body)
    assert (dry.status, dry.json) == (200, expected)
    assert await names(server) == ["a", "b", "mine"]
    assert (await server.call("PUT", "/schedules?group=shop", body)).json == expected
    assert await names(server) == ["a", "mine", "n"]
    again = (await server.call("PUT", "/schedules?group=shop", body)).json
    assert again == {"created": [], "changed": [], "unchanged": ["a", "n"], "deleted": []}
    assert (await server.get("/schedules/a")).json["group"] == "shop"


async def test_a_group_needs_a_name_and_takes_nothing_from_others(server):
    await put(server, "mine", EVERY)
    check_problem(
        await server.call("PUT", "/schedules", {"schedules": []}), 400, "missing_field", field="group"
    )
    check_problem(await server.call("PUT", "/schedules?group=g"), 400, "missing_field", field="schedules")
    for body, status, code in (
        ([{**EVERY, "name": "x"}, {**EVERY, "name": "mine"}], 409, "other_group"),
        ([{**EVERY, "name": "x"}, EVERY], 400, "missing_field"),
        ([{**EVERY, "name": "x"}, {**EVERY, "name": "x"}], 400, "invalid_field"),
        ([{**EVERY, "name": "x"}, {**EVERY, "name": "y", "group": "h"}], 400, "invalid_field"),
        ([{**EVERY, "name": "x"}, {**DAILY, "name": "y", "cron": "x"}], 400, "invalid_field"),
        ([{**EVERY, "name": "x"}, 5], 400, "invalid_field"),
    ):
        check_problem(
            await server.call("PUT", "/schedules?group=g", {"schedules": body}), status, code, index=1
        )
    assert await names(server) == ["mine"]


async def test_a_preview_stores_nothing(server):
    answer = await server.post(
        "/schedules/preview",
        {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "from": "2027-03-27T12:00:00Z", "count": 2},
    )
    assert answer.json == {
        "means": "At 02:30 every day", "next": ["2027-03-28T01:00:00.000Z", "2027-03-29T00:30:00.000Z"]
    }  # fmt: skip
    answer = await server.post("/schedules/preview?every=15m&count=1&from=2027-03-27T12:00:00Z")
    assert answer.json == {"means": "Every 15 minutes", "next": ["2027-03-27T12:00:00.000Z"]}
    check_problem(await server.post("/schedules/preview", {"cron": "x"}), 400, "invalid_field", field="cron")
    check_problem(await server.post("/schedules/preview"), 400, "missing_field", field="cron")
    assert await names(server) == []


# -- for people ------------------------------------------------------------------------------------------------


async def test_text_and_html(server):
    await put(server, body={**DAILY, "group": "<b>"})
    await put(server, "x", {**EVERY, "paused": True})
    text = (await server.get("/schedules?format=text")).body.decode()
    assert text.splitlines()[0].split() == [
        "SCHEDULE", "GROUP", "WHEN", "NEXT", "LAST", "OUTCOME", "TYPE", "QUEUE"
    ]  # fmt: skip
    assert "30 2 * * * Europe/Berlin" in text
    assert "paused" in text
    html = (await server.get("/schedules", headers={"Accept": "text/html"})).body.decode()
    assert '<a href="./schedules/report">report</a>' in html
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    one = (await server.get("/schedules/report?format=html")).body.decode()
    assert "At 02:30 every day" in one
    assert "job.type" in (await server.get("/schedules/report?format=text")).body.decode()
    more = (await server.get("/schedules?format=html&limit=1&paused=0", headers={})).body.decode()
    assert "cursor" not in more
    more = (await server.get("/schedules?format=html&limit=1")).body.decode()
    assert 'href="./schedules?format=html&amp;limit=1&amp;cursor=report"' in more


# -- rights ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens.toml"
    rights = {"admin": ["admin"], "mailer": ["admin", "read"], "reader": ["read"]}
    lines = [
        f'[{name}]\ndigest = "{digest_of(name)}"\nrights = {json.dumps(of)}\n' for name, of in rights.items()
    ]
    lines[1] += 'queues = ["mail"]\n'
    path.write_text("".join(lines))
    return Settings(first_id=1, tokens_file=str(path), access_token="one-token-for-everything")


@pytest.fixture
def settings(request):
    """With the mark `tokens` those of `tokens`."""
    if "with_tokens" in request.function.__name__:
        return request.getfixturevalue("tokens")
    return Settings(first_id=1)


def by(name):
    return {"Authorization": f"Bearer {name}"}


async def test_with_tokens_changes_need_the_right_admin(server):
    await put(server, headers=by("admin"))
    for method, path, body in (
        ("PUT", "/report", DAILY), ("DELETE", "/report", None), ("POST", "/report/run", None),
        ("POST", "/report/pause", None), ("POST", "/report/resume", None), ("PUT", "?group=g", {"schedules": []}),
        ("POST", "/import", {"schedules": []}),
    ):  # fmt: skip
        check_problem(await server.call(method, f"/schedules{path}", body, by("reader")), 403, "forbidden")
    for path in ("", "/report", "/report/history", "/report/explain"):
        assert (await server.call("GET", f"/schedules{path}", None, by("reader"))).status == 200
    assert (await server.call("POST", "/schedules/preview", {"every": 60}, by("reader"))).status == 200


async def test_with_tokens_for_some_queues_only_their_schedules_exist(server):
    await put(server, "mails", DAILY, headers=by("admin"))
    await put(server, "others", {**EVERY, "group": "shop"}, headers=by("admin"))
    listed = (await server.call("GET", "/schedules", None, by("mailer"))).json["schedules"]
    assert [each["name"] for each in listed] == ["mails"]
    for method, path in (
        ("GET", ""), ("GET", "/history"), ("GET", "/explain"), ("DELETE", ""), ("POST", "/run"), ("POST", "/pause"), ("POST", "/resume")
    ):  # fmt: skip
        answer = await server.call(method, f"/schedules/others{path}", None, by("mailer"))
        check_problem(answer, 404, "schedule_not_found")
    for name, body in (("new", EVERY), ("mails", EVERY), ("others", DAILY)):
        answer = await server.call("PUT", f"/schedules/{name}", body, by("mailer"))
        check_problem(answer, 403, "forbidden")
    body = {"schedules": [{**DAILY, "name": "mine"}]}
    answer = await server.call("PUT", "/schedules?group=shop", body, by("mailer"))
    check_problem(answer, 403, "forbidden")
    answer = await server.call("PUT", "/schedules?group=mine", body, by("mailer"))
    assert answer.json["created"] == ["mine"]
    answer = await server.call(
        "POST", "/schedules/import", {"schedules": [{**EVERY, "name": "n"}]}, by("mailer")
    )
    check_problem(answer, 403, "forbidden", index=0)
    assert (await server.call("POST", "/schedules/mails/run", None, by("mailer"))).status == 201
