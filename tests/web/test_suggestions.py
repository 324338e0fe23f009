"""Unknown names are answered with the name that was probably meant, and with no nonsense."""

import pytest
from serving import check_problem

from jobqueue.web.readers import suggestions
from jobqueue.web.routes import ROUTES

PATTERNS = tuple(dict.fromkeys(route.path for route in ROUTES))


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("/jobs/enqueue/", "/jobs/enqueue"), ("/queues/", "/queues"), ("/jobs/1/", "/jobs/1"),
        ("/enqueue", "/jobs/enqueue"), ("/dequeue", "/jobs/dequeue"), ("/jobs/add", "/jobs/enqueue"),
        ("/job/1", "/jobs/1"), ("/jobs/1/complete", "/jobs/1/conclude"), ("/jobs/1/Done", "/jobs/1/conclude"),
        ("/jobs/1/nack", "/jobs/1/fail"), ("/jobs/1/conclud", "/jobs/1/conclude"),
        ("/queue/q/puase", "/queues/q/pause"), ("/health", "/healthz"), ("/statss", "/stats"),
        ("/queues/q/jobs", "/jobs?queue=q"), ("/queues/done/puase", "/queues/done/pause"),
        ("/queues/q/unpause", "/queues/q/resume"), ("/queue/retry", "/queues/retry"), ("/queue/send/jobs", "/jobs?queue=send"), ("/foo", None), ("/favicon.ico", None), ("/jobs/1/a/b", None),
        ("/jobs//fail", None), ("", None), ("/", None), ("/" * 200, None), ("/{id}", None),
    ],
)  # fmt: skip
def test_the_intended_path_is_suggested(asked, meant):
    assert suggestions.path("GET", asked, PATTERNS) == meant


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("typ", "type"), ("prio", "priority"), ("data", "payload"), ("ttr", "lease_for"), ("timeout", "lease_for"),
        ("to", None), ("a", None), ("", None), ("retries", "max_attempts"),
    ],
)  # fmt: skip
def test_the_intended_field_is_suggested(name, meant):
    assert (
        suggestions.field(name, ("type", "queue", "priority", "payload", "lease_for", "max_attempts"))
        == meant
    )


async def test_words_of_other_queues_are_answered_with_advice(server):
    async def told(method, path, body=None):
        answer = await server.call(method, path, body)
        assert answer.status in (400, 404, 405), answer
        return answer.json["detail"]

    assert "PUT /schedules/{name}" in await told("POST", "/jobs/enqueue", {"type": "x", "cron": "0 3 * * *"})
    assert "belongs in job;" in await told("PUT", "/schedules/n", {"cron": "0 3 * * *", "type": "x"})
    assert "enqueue the next one" in await told("POST", "/jobs/enqueue", {"type": "x", "depends_on": [1]})
    assert "lease_for" in await told("POST", "/jobs/enqueue", {"type": "x", "timeout": 5})
    assert "max_in_progress" in await told("PATCH", "/queues/q", {"concurrency": 5})
    assert "max_in_progress" in await told("PATCH", "/queues/q", {"max_concurrency": 5})
    assert "a queue of its own" in await told("POST", "/jobs/dequeue?type=x")
    assert "-X POST" in await told("GET", "/jobs/dequeue")
    assert "Ctrl-C" in await told("POST", "/stop")
    assert "at most 16 digits" in await told("GET", "/jobs/99999999999999999")
    assert "older_than?" not in await told("GET", "/jobs?newer_than=1h")
    assert "did you mean dead?" in await told("GET", "/jobs?status=failed")
    assert "queues=a,b" in await told("POST", "/jobs/dequeue?queue=a&queue=b")
    for many in ("purge", "redrive", "cancel", "run_now", "move"):
        assert f"POST /queues/NAME/{many}" in await told("POST", f"/jobs/{many}")
    id = await server.enqueue()
    lease = (await server.dequeue())["lease"]
    assert "raw=1 takes it as it is" in await told("POST", f"/jobs/{id}/fail?lease={lease}", b"it broke")
    assert "raw=1" not in await told("POST", f"/jobs/{id}/fail?lease={lease}", b'{"error":')
    id = await server.enqueue(run_at="2027-01-15T10:00:00+0100", queue="later")
    assert (await server.job(id))["run_at"] == "2027-01-15T09:00:00.000Z"


async def test_only_the_beginning_of_a_long_name_is_compared(server, monkeypatch):
    compared = []
    monkeypatch.setattr(suggestions, "get_close_matches", lambda name, *_, **__: compared.append(name) or [])
    answer = await server.post("/jobs/enqueue", {"type": "x", "y" * 1_000_000: 1})
    check_problem(answer, 400, "unknown_field", field="y" * 64)
    assert compared == ["y" * 64]


async def test_an_unknown_path_is_answered_with_the_intended_one(server):
    problem = check_problem(
        await server.post("/jobs/1/ack"), 404, "no_such_route", nearest="/jobs/1/conclude"
    )
    assert "did you mean /jobs/1/conclude?" in problem["detail"]
    problem = check_problem(await server.post("/jobs//fail"), 404, "no_such_route")
    assert "a part of it is empty" in problem["detail"]


async def test_a_wrong_method_is_answered_with_the_right_ones(server):
    for method, path, meant in [
        ("POST", "/jobs", "POST /jobs/enqueue"), ("DELETE", "/queues/q", "POST /queues/q/purge"),
        ("POST", "/jobs/add", "did you mean /jobs/enqueue?"),
    ]:  # fmt: skip
        problem = check_problem(await server.call(method, path), 405, "method_not_allowed")
        assert meant in problem["detail"]


async def test_data_at_the_top_level_is_answered_with_the_advice_to_use_payload(server):
    problem = check_problem(
        await server.post("/jobs/enqueue", {"type": "x", "to": "ada"}), 400, "unknown_field"
    )
    assert "your own data goes in payload" in problem["detail"]
    assert "nearest" not in problem


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("type=x", "looks like a form"), ("--abc\r\nContent-Disposition: form-data", "looks like a form"),
        ("{'type':'x'}", "double quotes"), ('{"type":"x"', "its end is missing"), ("5", "not a number"),
        ('{"type":5}', "type: must be text, not a number"), ('{"type":"x","tags":[1]}', "a number in it"),
        ('[{"type":"x"},"y"]', "not a string"),
    ],
)  # fmt: skip
async def test_a_malformed_body_is_answered_in_the_terms_of_json(server, body, said):
    answer = await server.post("/jobs/enqueue", body)
    assert answer.status == 400
    assert said in answer.json["detail"]
    assert "`" not in answer.json["detail"]
