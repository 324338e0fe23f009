"""Access tokens: who is admitted, what each token may do, and what it sees."""

import inspect
import json
from base64 import b64encode
from contextlib import suppress

import pytest
from serving import check_problem, until
from streams import StreamReader

from jobqueue import MemoryEngine, Settings
from jobqueue.engine.api import EngineView
from jobqueue.errors import SettingError, TooManyRequests, Unauthorized
from jobqueue.model import ImportedHistory, ImportItem, NewJob
from jobqueue.web.access.authorized_engine import AuthorizedEngine
from jobqueue.web.access.identity import Authenticator
from jobqueue.web.access.rate_limits import TokenBuckets, network
from jobqueue.web.access.tokens import digest_of
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.http import Request
from jobqueue.web.routes import ROUTES
from jobqueue.web.streams import flow

ONE = "one-token-for-everything"
TOKENS = {
    "producer": ["enqueue"], "consumer": ["dequeue"], "reader": ["read"], "admin": ["admin"],
    "worker": ["enqueue", "dequeue", "read"], "other": ["enqueue", "dequeue", "read"],
    "mailer": ["enqueue", "dequeue", "read", "admin"], "brief": ["read"],
    "carrier": ["admin"],
}  # fmt: skip
MORE = {
    "mailer": 'queues = ["mail", "mail-*"]',
    "carrier": 'queues = ["parcels"]',
    "brief": "expires_at = 2026-11-24T12:00:00Z",
}


def table(name, rights=None, token=None):
    listed = ", ".join(f'"{right}"' for right in rights or TOKENS[name])
    return f'[{name}]\ndigest = "{digest_of(token or name)}"\nrights = [{listed}]\n{MORE.get(name, "")}\n'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text("".join(map(table, TOKENS)))
    return path


@pytest.fixture
def settings(file, request):
    """A test may set `rate` as the parameter of this fixture."""
    rate = getattr(request, "param", None)
    return Settings(first_id=1, tokens_file=str(file), access_token=ONE, rate=rate)


# Options that make these calls end.
ENDLESS = dict.fromkeys(["/events", "/top", "/jobs/stream"], "?for=10ms")


def by(name):
    return {"Authorization": f"Bearer {name}"}


async def call(server, who, method, path, body=None):
    return await server.call(method, path, body, by(who) if who else None)


async def enqueue(server, who, **job):
    answer = await call(server, who, "POST", "/jobs/enqueue", {"type": "x", **job})
    assert answer.status == 201, answer
    return answer.json["id"]


async def dequeue(server, who, **options):
    answer = await call(server, who, "POST", "/jobs/dequeue", options)
    assert answer.status == 200, answer
    return answer.json


# -- who is let in ----------------------------------------------------------------------------------


async def test_without_a_token_only_health_checks_are_answered(server):
    for method, path in [(route.method, route.path) for route in ROUTES]:
        path = path.replace("{id}", "1").replace("{name}", "q")
        answer = await server.call(method, path)
        if path in ("/healthz", "/readyz"):
            assert answer.status == 200
        else:
            check_problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == (
                'Bearer realm="jobqueue", Basic realm="jobqueue", charset="UTF-8"'
            )
    assert (await server.get("/healthz")).json["auth"] == "tokens"


async def test_each_way_to_send_a_token_has_its_own_header_line(server):
    """Chromium reads the first scheme of a line only, and cannot ask for a Bearer token."""
    client = await server.connect()
    client.send(b"GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    lines = (await client.rest()).partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    schemes = [line.split()[1] for line in lines if line.startswith(b"www-authenticate:")]
    assert schemes == [b"bearer", b"basic"]


async def test_route_and_method_are_checked_before_the_token_and_the_body_after_it(server):
    check_problem(await server.get("/nowhere"), 404, "no_such_route")
    check_problem(await server.get("/jobs/enqueue"), 405, "method_not_allowed")
    check_problem(await server.post("/jobs/enqueue", b"{"), 401, "unauthorized")
    check_problem(
        await server.post("/jobs/enqueue", b"x" * (Settings().max_request + 1)), 401, "unauthorized"
    )
    gzip = {"Content-Encoding": "gzip"}
    check_problem(await server.post("/jobs/enqueue", b"x", gzip), 401, "unauthorized")
    check_problem(await server.post("/jobs/enqueue", b"x", gzip | by(ONE)), 415, "unsupported_encoding")


@pytest.mark.parametrize(
    ("header", "good"),
    [
        (f"Bearer {ONE}", True),
        (f"bearer   {ONE} ", True),
        ("Basic " + b64encode(f":{ONE}".encode()).decode(), True),
        ("basic " + b64encode(f"anybody:{ONE}".encode()).decode(), True),
        ("Basic " + b64encode(f"{ONE}:".encode()).decode(), True),
        ("Basic " + b64encode(ONE.encode()).decode(), True),
        ("Bearer worker", True),
        ("Bearer", False),
        ("Bearer ", False),
        ("", False),
        (ONE, False),
        (f"Bearer {ONE[:-1]}", False),
        (f"Bearer {ONE}x", False),
        (f"Bearer {ONE.upper()}", False),
        (f"Bearer {digest_of(ONE)}", False),
        (f"Bearer {digest_of('worker')}", False),
        (f"Digest {ONE}", False),
        ("Basic !!!", False),
        ("Basic " + b64encode(f"{ONE}:x".encode()).decode(), False),
    ],
)
async def test_a_token_is_accepted_as_bearer_and_as_basic_password(server, header, good):
    answer = await server.get("/stats", {"Authorization": header})
    if good:
        assert answer.status == 200
    else:
        check_problem(answer, 401, "unauthorized")


async def test_two_tokens_in_one_request_are_refused(server):
    client = await server.connect()
    client.send(
        f"GET /stats HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ONE}\r\n"
        f"Authorization: Bearer {ONE}\r\n\r\n".encode()
    )
    check_problem(await client.read(), 401, "unauthorized")


async def test_each_request_of_a_connection_needs_a_token(server):
    client = await server.connect()
    assert (await client.call("GET", "/stats", None, by(ONE))).status == 200
    assert (await client.call("GET", "/stats")).status == 401
    assert (await client.call("GET", "/stats", None, by(ONE))).status == 200
    assert (await client.call("GET", "/stats", None, by("nobody"))).status == 401


async def test_a_token_expires(server):
    server.clock.wall_jump(1_795_521_599_000 / 1000 - server.clock.wall() / 1000)
    server.engine.tick()
    assert (await call(server, "brief", "GET", "/stats")).status == 200
    server.clock.advance("1s")
    server.engine.tick()
    assert (
        "expired"
        in check_problem(await call(server, "brief", "GET", "/stats"), 401, "unauthorized")["detail"]
    )


# -- rights -----------------------------------------------------------------------------------------

# The calls of each right, as in docs/security.md. "": any token will do; None: no token is needed.
GRANTED = {
    "enqueue": {
        "POST /jobs/enqueue", "POST /queues/{name}/enqueue", "PATCH /jobs/{id}", "DELETE /jobs/{id}", "POST /jobs/{id}/redrive",
    },
    "dequeue": {
        "POST /jobs/dequeue", "POST /queues/{name}/dequeue", "POST /jobs/{id}/dequeue", "POST /jobs/{id}/conclude", "POST /jobs/{id}/heartbeat",
        "POST /jobs/{id}/release", "POST /jobs/{id}/fail", "POST /jobs/conclude", "POST /jobs/heartbeat",
        "POST /jobs/release", "POST /jobs/fail", "POST /jobs/stream",
    },
    "read": {"GET /jobs/{id}", "GET /jobs/{id}/explain", "GET /jobs", "GET /jobs/count", "GET /jobs/groups", "GET /consumers", "GET /queues", "GET /queues/{name}", "GET /queues/{name}/peek", "GET /queues/{name}/series", "GET /stats", "GET /cluster", "GET /metrics", "GET /events", "GET /top",
             "GET /schedules", "GET /schedules/{name}", "GET /schedules/{name}/history",
             "GET /schedules/{name}/explain", "POST /schedules/preview"},
    "admin": {
        "PATCH /queues/{name}", "POST /queues/{name}/pause", "POST /queues/{name}/resume",
        "POST /queues/{name}/purge", "POST /queues/{name}/redrive", "POST /queues/{name}/cancel",
        "GET /tokens", "GET /audit",
        "POST /queues/{name}/run_now", "POST /queues/{name}/move", "GET /queues/{name}/export", "POST /import",
        "PUT /import", "PUT /schedules", "POST /schedules/import", "PUT /schedules/{name}", "DELETE /schedules/{name}",
        "POST /schedules/{name}/run", "POST /schedules/{name}/pause", "POST /schedules/{name}/resume",
    },
    "": {"GET /", "GET /help", "GET /openapi.json", "GET /worker.sh", "GET /worker.py"},
    None: {"GET /healthz", "GET /readyz"},
}  # fmt: skip


def test_each_route_needs_the_documented_right():
    granted: dict[str | None, set[str]] = {right: set() for right in GRANTED}
    for route in ROUTES:
        granted[route.right].add(f"{route.method} {route.path}")
    assert granted == GRANTED


@pytest.mark.parametrize("who", ["producer", "consumer", "reader", "admin"])
async def test_a_token_may_make_only_the_calls_of_its_rights(server, who):
    for route in ROUTES:
        path = route.path.replace("{id}", "1").replace("{name}", "q")
        answer = await call(server, who, route.method, path + ENDLESS.get(path, ""))
        needed = route.right
        if needed in (None, "", TOKENS[who][0]) or who == "admin":
            assert answer.status not in (401, 403), (route.path, answer)
        else:
            assert needed in check_problem(answer, 403, "forbidden")["detail"]


# -- queues -----------------------------------------------------------------------------------------


async def test_a_token_may_use_only_the_queues_that_match_its_patterns(server):
    assert await enqueue(server, "mailer", queue="mail")
    assert await enqueue(server, "mailer", queue="mail-2")
    for name in ("default", "mails", "xmail"):
        for method, path, body in [
            ("POST", "/jobs/enqueue", {"type": "x", "queue": name}),
            ("POST", "/jobs/enqueue", [{"type": "x", "queue": "mail"}, {"type": "x", "queue": name}]),
            ("POST", "/jobs/enqueue?atomic=false", [{"type": "x", "queue": name}]),
            ("POST", "/jobs/dequeue", {"queues": ["mail", name]}),
            ("POST", f"/queues/{name}/enqueue", {"type": "x"}),
            ("POST", f"/queues/{name}/enqueue?raw=1", b"x"),
            ("POST", f"/queues/{name}/dequeue", None),
            ("POST", f"/jobs/1/conclude?next=1&queue={name}", None),
            ("GET", f"/queues/{name}", None),
            ("PATCH", f"/queues/{name}", {"max_jobs": 1}),
            ("PATCH", "/queues/mail", {"dead_letter": name}),
            ("POST", f"/queues/{name}/pause", None),
            ("POST", f"/queues/{name}/resume", None),
            ("POST", f"/queues/{name}/purge", {"all": True}),
            ("POST", f"/queues/{name}/redrive", {"all": True}),
            ("POST", f"/queues/{name}/cancel", {"all": True}),
            ("POST", f"/queues/{name}/run_now", {"all": True}),
            ("POST", f"/queues/{name}/move", {"all": True, "to": "mail"}),
            ("POST", f"/queues/{name}/move", {"all": True, "back": True}),
            ("POST", "/queues/mail/move", {"all": True, "to": name}),
        ]:
            refused = check_problem(await call(server, "mailer", method, path, body), 403, "forbidden")
            assert name in refused["detail"], path
    assert (await call(server, "mailer", "POST", "/queues/mail/pause")).status == 200
    assert (await call(server, "mailer", "PATCH", "/queues/mail", {"dead_letter": "mail-2"})).status == 200
    assert server.engine.stats().jobs["queued"] == 2


async def test_a_token_dequeues_by_priority(server):
    for queue, priority in (("mail", 0), ("mail-2", 1)):
        await enqueue(server, "admin", queue=queue, priority=priority)
    want = {"queues": "mail,mail-2", "order": "priority"}
    assert (await dequeue(server, "mailer", **want))["queue"] == "mail-2"


async def test_a_token_sees_only_the_consumers_and_groups_of_its_queues(server):
    for name in ("mail", "default"):
        job = {"type": "x", "queue": name, "max_attempts": 1}
        for _ in range(2):
            await call(server, "admin", "POST", "/jobs/enqueue", job)
        taken = (await call(server, "admin", "POST", f"/queues/{name}/dequeue?consumer=ann")).json
        await call(server, "admin", "POST", f"/jobs/{taken['id']}/fail?lease={taken['lease']}")
        await call(server, "admin", "POST", f"/queues/{name}/dequeue?consumer={name}")
    shown = (await call(server, "mailer", "GET", "/consumers")).json
    assert [each["consumer"] for each in shown["consumers"]] == ["mail"]
    groups = (await call(server, "mailer", "GET", "/jobs/groups?by=queue")).json["groups"]
    assert [(group["queue"], group["count"]) for group in groups] == [("mail", 1)]
    assert len((await call(server, "admin", "GET", "/consumers")).json["consumers"]) == 2


async def test_a_token_moves_jobs_back_only_to_its_queues(server):
    for name in ("mail", "default"):
        await call(server, "admin", "PATCH", f"/queues/{name}", {"dead_letter": "mail-2"})
        await call(server, "admin", "POST", "/jobs/enqueue", {"type": "x", "queue": name})
        taken = (await call(server, "admin", "POST", f"/queues/{name}/dequeue")).json
        await call(server, "admin", "POST", f"/jobs/{taken['id']}/fail?retry=0&lease={taken['lease']}")
    moved = (await call(server, "mailer", "POST", "/queues/mail-2/move?back=1&all=1")).json
    assert (moved["matched"], moved["changed"]) == (1, 1)
    assert server.engine.queue("default").jobs["queued"] == 0
    assert server.engine.queue("mail").jobs["queued"] == 1


@pytest.mark.parametrize("number", [1, 57, 101, 160])
async def test_an_import_ends_at_a_line_for_a_queue_that_the_token_may_not_use(server, number):
    lines = ['{"type":"x","queue":"mail"}\n'] * 160
    lines[number - 1] = '{"type":"x","queue":"default"}\n'
    answer = await call(server, "mailer", "PUT", "/import", "".join(lines))
    refused = check_problem(answer, 403, "forbidden", line=number, imported=number - 1, known=0)
    assert refused["detail"].startswith(f"line {number}: ")
    assert "default" in refused["detail"]
    assert server.engine.stats().jobs["queued"] == number - 1


def line_of(queue, origin):
    return json.dumps({"type": "x", "queue": queue, "origin": origin}) + "\n"


async def test_what_one_token_imported_is_not_known_to_another(server):
    """Neither can it find out what the other one imported, nor have that one's import count as done."""
    for name, queue in (("mailer", "mail"), ("carrier", "parcels"), ("admin", "mail")):
        once = await call(server, name, "PUT", "/import", line_of(queue, "elsewhere/7"))
        assert once.json == {"imported": 1, "known": 0}, name
        again = await call(server, name, "PUT", "/import", line_of(queue, "elsewhere/7"))
        assert again.json == {"imported": 0, "known": 1}, name


async def test_only_who_may_see_a_job_of_this_server_is_told_that_its_origin_is_known(server):
    await enqueue(server, "worker", queue="private")
    origin = f"{server.engine.identity}/1"
    answer = await call(server, "mailer", "PUT", "/import", line_of("mail", origin))
    assert answer.json == {"imported": 1, "known": 0}
    answer = await call(server, "admin", "PUT", "/import", line_of("private", origin))
    assert answer.json == {"imported": 0, "known": 1}


async def test_what_was_imported_without_tokens_is_known_to_those_who_may_see_all_queues(server):
    for _ in range(2):
        item = ImportItem(NewJob("x", "mail"), ImportedHistory(1), "elsewhere/7")
        server.engine.import_jobs([item])  # as by a server without tokens, or of an older version
    answer = await call(server, "admin", "PUT", "/import", line_of("mail", "elsewhere/7"))
    assert answer.json == {"imported": 0, "known": 1}
    answer = await call(server, "mailer", "PUT", "/import", line_of("mail", "elsewhere/7"))
    assert answer.json == {"imported": 1, "known": 0}


async def test_a_job_in_a_queue_of_others_is_not_found(server):
    await enqueue(server, "worker", queue="private")
    lease = (await dequeue(server, "worker", queue="private"))["lease"]
    nothing = (await call(server, "mailer", "GET", "/jobs/999")).json["detail"]
    for method, path in [
        ("GET", "/jobs/1"), ("GET", "/jobs/1?wait=1"), ("GET", "/jobs/1/explain"), ("DELETE", "/jobs/1"), ("PATCH", "/jobs/1"),
        ("POST", "/jobs/1/redrive"), ("POST", f"/jobs/1/conclude?lease={lease}"),
        ("POST", f"/jobs/1/heartbeat?lease={lease}"), ("POST", f"/jobs/1/release?lease={lease}"),
        ("POST", f"/jobs/1/fail?lease={lease}"), ("POST", "/jobs/1/dequeue"),
    ]:  # fmt: skip
        body = {"priority": 1} if method == "PATCH" else None
        problem = check_problem(await call(server, "mailer", method, path, body), 404, "job_not_found")
        assert problem["detail"] == nothing, path
    done = await call(server, "mailer", "POST", "/jobs/conclude", [{"id": 1, "lease": lease}])
    assert done.json["results"][0]["error"]["code"] == "job_not_found"
    assert server.engine.get(1).status == "in_progress"


async def test_a_job_is_not_moved_to_a_queue_that_the_token_may_not_use(server):
    id = await enqueue(server, "mailer", queue="mail")
    check_problem(await call(server, "mailer", "PATCH", f"/jobs/{id}", {"queue": "x"}), 403, "forbidden")
    assert (await call(server, "mailer", "PATCH", f"/jobs/{id}", {"queue": "mail-2"})).status == 200


async def moved_to_private(server, id):
    """Lets a job die, move to a queue that `mailer` may not see, and be concluded there."""
    await call(server, "admin", "PATCH", "/queues/mail", {"dead_letter": "private"})
    lease = (await dequeue(server, "worker", queue="mail"))["lease"]
    answer = await call(server, "worker", "POST", f"/jobs/{id}/fail", {"lease": lease, "retry": False})
    assert answer.json["queue"] == "private"
    lease = (await dequeue(server, "worker", queue="private"))["lease"]
    done = await call(server, "worker", "POST", f"/jobs/{id}/conclude", {"lease": lease, "result": "secret"})
    assert done.status == 200


async def test_a_wait_does_not_reveal_a_job_that_moved_to_a_hidden_queue(server):
    asking, waiting = await server.connect(), await server.connect()
    prefer = {"Prefer": "wait=30"}
    asking.ask("POST", "/jobs/enqueue", {"type": "x", "queue": "mail"}, by("mailer") | prefer)
    await until(lambda: server.engine._queue.state.outcomes.count == 1)
    waiting.ask("GET", "/jobs/1?wait=30", None, by("mailer"))
    await until(lambda: server.engine._queue.state.outcomes.count == 2)
    await moved_to_private(server, 1)
    now = (await call(server, "mailer", "GET", "/jobs/1")).json["detail"]
    for client in (asking, waiting):
        assert check_problem(await client.read(), 404, "job_not_found")["detail"] == now


async def test_a_wait_reports_a_job_that_moved_to_a_visible_queue(server):
    id = await enqueue(server, "mailer", queue="mail")
    waiting = await server.connect()
    waiting.ask("GET", f"/jobs/{id}?wait=30", None, by("mailer"))
    await until(lambda: server.engine._queue.state.outcomes.count == 1)
    await call(server, "mailer", "PATCH", f"/jobs/{id}", {"queue": "mail-2"})
    await call(server, "mailer", "DELETE", f"/jobs/{id}")
    assert (await waiting.read()).json["status"] == "cancelled"


async def test_an_idempotency_key_shows_only_the_id_of_a_job_in_a_hidden_queue(server):
    once = by("mailer") | {"Idempotency-Key": "k"}
    job = {"type": "x", "queue": "mail"}
    assert (await server.post("/jobs/enqueue", job, once)).json["id"] == 1
    many = {**once, "Idempotency-Key": "many"}
    await server.post("/jobs/enqueue", [job, job], many)
    await moved_to_private(server, 1)
    for headers in (once, once | {"Prefer": "wait=1"}):
        again = await server.post("/jobs/enqueue", job, headers)
        assert (again.status, again.json) == (200, {"id": 1, "duplicate": True})
    await moved_to_private(server, 2)
    first, second = (await server.post("/jobs/enqueue", [job, job], many)).json["jobs"]
    assert (first, second["status"]) == ({"id": 2, "duplicate": True}, "queued")


async def test_lists_show_only_jobs_of_visible_queues(server):
    for queue in ("a", "mail", "b", "mail-2", "mail-3"):
        await enqueue(server, "worker", queue=queue)
    seen = (await call(server, "mailer", "GET", "/jobs")).json["jobs"]
    assert [job["queue"] for job in seen] == ["mail", "mail-2", "mail-3"]
    assert (await call(server, "mailer", "GET", "/jobs?queue=a")).json["jobs"] == []
    assert (await call(server, "mailer", "GET", "/jobs/count")).json == {"count": 3}
    first = (await call(server, "mailer", "GET", "/queues?limit=2")).json
    assert ([queue["name"] for queue in first["queues"]], first["next"]) == (["mail", "mail-2"], "mail-2")
    rest = (await call(server, "mailer", "GET", "/queues?limit=2&cursor=mail-2")).json
    assert ([queue["name"] for queue in rest["queues"]], "next" in rest) == (["mail-3"], False)
    assert len((await call(server, "worker", "GET", "/queues")).json["queues"]) == 5


async def test_counts_leave_out_hidden_queues(server):
    for queue in ("a", "a", "b", "mail", "mail-2"):
        await enqueue(server, "worker", queue=queue)
    await dequeue(server, "worker", queue="a")
    waiting = [await server.connect() for _ in range(3)]
    for client, queues in zip(waiting, ("c", "c", "mail-3,mail-4"), strict=True):
        client.ask("POST", f"/jobs/dequeue?wait=30&queues={queues}", None, by("worker"))
    await server.waiting(3)
    whole, part = [(await call(server, who, "GET", "/stats")).json for who in ("reader", "mailer")]
    assert (whole["jobs"]["queued"], whole["jobs"]["in_progress"], whole["queues"]) == (4, 1, 4)
    assert (part["jobs"]["queued"], part["jobs"]["in_progress"], part["queues"]) == (2, 0, 2)
    assert (whole["consumers_waiting"], part["consumers_waiting"]) == (3, 1)
    assert sum(part["jobs"].values()) == (await call(server, "mailer", "GET", "/jobs/count")).json["count"]
    # Other figures that grow with the jobs of others.
    assert whole.keys() - part.keys() - {"journal"} == {"lanes", "remembered"}
    assert "journal" not in part
    assert (whole["idempotency"].keys() - part["idempotency"].keys()) == {"keys"}
    assert "rss_bytes" not in part["memory"]
    screen = (await call(server, "mailer", "GET", "/top?for=10ms")).body
    assert b"queued 2  in_progress 0" in screen
    assert b" more" not in screen


# -- leases and keys --------------------------------------------------------------------------------


async def test_a_lease_belongs_to_the_token_that_took_it(server):
    id = await enqueue(server, "worker")
    lease = (await dequeue(server, "worker"))["lease"]
    for verb in ("heartbeat", "release", "fail", "conclude"):
        for path in (f"/jobs/{id}/{verb}?lease={lease}", f"/jobs/{id}/{verb}"):
            check_problem(await call(server, "other", "POST", path), 403, "forbidden")
        many = await call(server, "other", "POST", f"/jobs/{verb}", [{"id": id, "lease": lease}])
        assert many.json["results"][0]["error"]["code"] == "forbidden"
    assert (await call(server, "worker", "POST", f"/jobs/{id}/conclude?lease={lease}")).status == 200


async def test_an_administrator_may_end_any_lease_and_still_needs_its_token(server):
    id = await enqueue(server, "worker")
    lease = (await dequeue(server, "worker"))["lease"]
    check_problem(await call(server, "admin", "POST", f"/jobs/{id}/conclude?lease=x"), 409, "lease_lost")
    assert (await call(server, "admin", "POST", f"/jobs/{id}/conclude?lease={lease}")).status == 200


async def test_a_stale_job_belongs_to_the_token_that_leases_it_next(server):
    id = await enqueue(server, "worker")
    await dequeue(server, "worker")
    server.clock.advance("5m1s")
    server.engine.tick()
    await dequeue(server, "other")
    check_problem(await call(server, "worker", "POST", f"/jobs/{id}/conclude"), 403, "forbidden")
    assert (await call(server, "other", "POST", f"/jobs/{id}/conclude")).status == 200


async def test_each_token_has_its_own_idempotency_keys(server):
    once = {"Idempotency-Key": "k"}
    made = [
        (await server.post("/jobs/enqueue", {"type": "x"}, by(who) | once)).json["id"]
        for who in ("worker", "other", "worker", "other")
    ]
    assert made == [1, 2, 1, 2]
    check_problem(
        await server.post("/jobs/enqueue", {"type": "y"}, by("other") | once), 422, "idempotency_mismatch"
    )


# -- reload -----------------------------------------------------------------------------------------


async def test_a_revoked_token_is_refused_at_once_and_its_waiting_requests_end(server, file):
    waiting = {}
    for who in ("worker", "other"):
        waiting[who] = await server.connect()
        waiting[who].ask("POST", "/jobs/dequeue?wait=30", None, by(who))
    id = await enqueue(server, "worker", queue="elsewhere")
    watching = await server.connect()
    watching.ask("GET", f"/jobs/{id}?wait=30", None, by("worker"))
    await until(
        lambda: server.engine.stats().consumers_waiting == 2 and server.engine._queue.state.outcomes.count
    )
    file.write_text("".join(table(name) for name in TOKENS if name != "worker"))
    server.dispatcher.auth.reload()
    for client in (waiting["worker"], watching):
        assert "revoked" in check_problem(await client.read(), 401, "unauthorized")["detail"]
    check_problem(await call(server, "worker", "GET", "/stats"), 401, "unauthorized")
    assert server.engine.stats().consumers_waiting == 1
    await enqueue(server, "other")
    assert (await waiting["other"].read()).json["id"] == id + 1


async def test_a_reload_without_changes_ends_no_waiting_request(server, file):
    client = await server.connect()
    for _ in range(3):  # so its headers are known, and what it may
        assert (await client.call("POST", "/jobs/dequeue", None, by("worker"))).status == 204
    server.dispatcher.auth.reload()
    client.ask("POST", "/jobs/dequeue?wait=30", None, by("worker"))
    await server.waiting(1)
    file.write_text("".join(table(name) for name in TOKENS if name != "worker"))
    server.dispatcher.auth.reload()
    assert "revoked" in check_problem(await client.read(), 401, "unauthorized")["detail"]
    await enqueue(server, "other")
    assert server.engine.stats().jobs["queued"] == 1


async def test_a_request_that_waits_for_its_new_job_ends_when_the_token_is_revoked(server, file):
    client = await server.connect()
    client.ask("POST", "/jobs/enqueue", {"type": "x"}, by("worker") | {"Prefer": "wait=30"})
    await until(lambda: server.engine._queue.state.outcomes.count == 1)
    file.write_text("".join(table(name) for name in TOKENS if name != "worker"))
    server.dispatcher.auth.reload()
    assert "revoked" in check_problem(await client.read(), 401, "unauthorized")["detail"]


async def test_an_import_that_waits_for_more_is_refused_at_once_when_its_token_is_revoked(server, file):
    client = await server.connect()
    client.send(
        b"PUT /import HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin\r\n"
        b'Transfer-Encoding: chunked\r\n\r\nd\r\n{"type":"a"}\n\r\n'
    )
    await until(lambda: server.engine.stats().jobs["queued"] == 1)
    file.write_text("".join(table(name) for name in TOKENS if name != "admin"))
    server.dispatcher.auth.reload()
    answer = await client.read("PUT")
    assert "revoked" in check_problem(answer, 401, "unauthorized")["detail"]
    assert answer.headers["connection"] == "close"


async def test_no_line_of_an_import_counts_after_its_token_was_revoked(server, file):
    client = await server.connect()
    lines = b'{"type":"a"}\n' * 3000
    reload, count = server.dispatcher.auth.reload, 0

    def revoked_after_the_first_jobs(*_):
        nonlocal count
        count += 1
        if count == 1:
            file.write_text("".join(table(name) for name in TOKENS if name != "admin"))
            reload()

    server.engine.watch(revoked_after_the_first_jobs)
    client.ask("PUT", "/import", lines, by("admin"))
    refused = check_problem(await client.read("PUT"), 401, "unauthorized")
    assert refused["imported"] == server.engine.stats().jobs["queued"] == refused["line"] - 1 < 3000


async def test_a_body_that_arrives_after_its_token_was_revoked_enqueues_nothing(server, file):
    clients = [await server.connect() for _ in range(2)]
    body = b'{"type":"x"}\n{"type":"y"}'
    for client in clients:
        client.send(
            b"POST /jobs/enqueue HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer worker\r\n"
            b"Content-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:9]
        )
    await call(server, "other", "GET", "/stats")
    file.write_text("".join(table(name) for name in TOKENS if name != "worker"))
    server.dispatcher.auth.reload()
    for client in clients:
        client.send(body[9:])
        check_problem(await client.read("POST"), 401, "unauthorized")
    assert server.engine.stats().jobs["queued"] == 0


async def test_an_import_ends_when_its_token_is_revoked(server, file):
    clients = [await server.connect() for _ in range(2)]
    for client in clients:
        client.send(
            b"PUT /import HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin\r\n"
            b'Transfer-Encoding: chunked\r\n\r\nd\r\n{"type":"a"}\n\r\n'
        )
    await until(lambda: server.engine.stats().jobs["queued"] == 2)
    file.write_text("".join(table(name) for name in TOKENS if name != "admin"))
    server.dispatcher.auth.reload()
    clients[0].send(b'd\r\n{"type":"b"}\n\r\n0\r\n\r\n')
    clients[1].send(b"0\r\n\r\n")
    for client in clients:
        assert "revoked" in check_problem(await client.read("PUT"), 401, "unauthorized")["detail"]
    assert server.engine.stats().jobs["queued"] == 2


async def test_a_token_whose_rights_change_is_revoked(server, file):
    client = await server.connect()
    client.ask("POST", "/jobs/dequeue?wait=30", None, by("worker"))
    await server.waiting(1)
    file.write_text("".join(table(n, ["read"] if n == "worker" else None) for n in TOKENS))
    server.dispatcher.auth.reload()
    check_problem(await client.read(), 401, "unauthorized")
    assert (await call(server, "worker", "GET", "/stats")).status == 200
    check_problem(await call(server, "worker", "POST", "/jobs/dequeue"), 403, "forbidden")


async def test_a_new_token_of_the_same_name_may_use_the_old_leases(server, file):
    id = await enqueue(server, "worker")
    await dequeue(server, "worker")
    file.write_text("".join(table(n, token="new" if n == "worker" else None) for n in TOKENS))
    server.dispatcher.auth.reload()
    assert (await call(server, "new", "POST", f"/jobs/{id}/conclude")).status == 200


async def test_an_invalid_file_of_tokens_changes_nothing(server, file):
    file.write_text("[worker]\n")
    with pytest.raises(SettingError, match="digest"):
        server.dispatcher.auth.reload()
    assert (await call(server, "worker", "GET", "/stats")).status == 200


async def test_a_health_check_with_a_wrong_token_is_answered(server):
    for who in ("brief", "unknown"):
        assert (await call(server, who, "GET", "/stats")).status == 401
        for path in ("/healthz", "/readyz"):
            assert (await call(server, who, "GET", path)).status == 200, (who, path)


# -- wrong tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [None, 10_000], ids=["no rate", "a rate"], indirect=True)
async def test_an_address_that_tries_many_tokens_is_slowed_down_and_known_tokens_are_not(server):
    assert (await call(server, "worker", "GET", "/stats")).status == 200
    statuses = [(await call(server, f"guess-{n}", "GET", "/stats")).status for n in range(15)]
    assert statuses[:8] == [401] * 8
    assert statuses[-1] == 429
    slowed = await call(server, "guess", "GET", "/stats")
    assert check_problem(slowed, 429, "too_many_requests")["retry_after"] == 1
    assert slowed.headers["retry-after"] == "1"
    assert (await call(server, "worker", "GET", "/stats")).status == 200
    # A valid token that was not used before is refused too, or guessing on would find it.
    check_problem(await call(server, "other", "GET", "/stats"), 429, "too_many_requests")


def test_wrong_tokens_are_counted_by_address():
    auth = Authenticator(Settings(access_token=ONE), MemoryEngine())
    stats = next(route for route in ROUTES if route.path == "/stats")

    def tried(peer, token):
        with suppress(Unauthorized, TooManyRequests):
            return auth.check(
                stats.right, Request("GET", "/stats", "", {b"authorization": token}, b"", peer, "r")
            )

    for _ in range(20):
        tried("10.0.0.1", b"Bearer guess")
    assert tried("10.0.0.1", b"Bearer " + ONE.encode()) is None
    assert tried("10.0.0.2", b"Bearer " + ONE.encode()).name == "access-token"
    assert tried("10.0.0.1", b"Bearer " + ONE.encode()).name == "access-token"


def test_the_memory_of_wrong_and_right_tokens_is_bounded():
    auth = Authenticator(Settings(access_token=ONE), MemoryEngine())
    stats = next(route for route in ROUTES if route.path == "/stats")
    for n in range(10_000):
        basic = b"Basic " + b64encode(f"user-{n}:{ONE}".encode())
        auth.check(stats.right, Request("GET", "/stats", "", {b"authorization": basic}, b"", "10.0.0.1", "r"))
    assert len(auth.known) <= 4096


def test_a_token_bucket_refills_and_full_ones_are_forgotten():
    buckets = TokenBuckets(rate=2, burst=3, most=2)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.wait("a", 0.25) == 0.25
    assert [buckets.take("a", 0.5), buckets.take("a", 0.5)] == [0, 0.5]
    assert [buckets.take("a", 100.0) for _ in range(4)] == [0, 0, 0, 0.5]
    buckets.take("b", 100.0)
    buckets.take("c", 100.0)
    assert buckets.wait("a", 100.0) == 0


@pytest.mark.parametrize(
    ("peer", "counts_as"),
    [
        ("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"), ("", ""), ("not:an:address", "not:an:address"), ("fe80::1%eth0", "fe80::/64"),
    ],
)  # fmt: skip
def test_the_prefix_of_an_ipv6_address_counts_as_one_address(peer, counts_as):
    assert network(peer) == counts_as


# -- nothing is forgotten ---------------------------------------------------------------------------


def test_the_authorized_engine_has_every_verb_of_an_engine():
    verbs = {name for name in vars(EngineView) if not name.startswith("_")}
    assert verbs <= {name for name in vars(AuthorizedEngine) if not name.startswith("_")} | {
        "settings",
        "durability",
    }


def test_no_secret_is_kept_in_memory():
    dispatcher = Dispatcher(MemoryEngine(Settings(access_token=ONE)))
    kept = {name: getattr(dispatcher.auth, name, None) for name in dir(dispatcher.auth)}
    assert ONE not in str(kept) + repr(vars(dispatcher.settings))
    assert [*dispatcher.auth._by_digest] == [bytes.fromhex(digest_of(ONE))]


# -- streams ----------------------------------------------------------------------------------------


async def test_a_watcher_gets_only_events_of_visible_queues(server):
    reading = await StreamReader.begin(server, "GET", "/events", None, by("mailer"))
    assert await reading.frame() == b"retry: 2000"
    await enqueue(server, "worker", queue="secret")
    id = await enqueue(server, "worker", queue="mail")
    assert (await reading.event()).data["id"] == id
    for path in ("/events?queue=secret", "/queues/secret?format=events"):
        check_problem(await call(server, "mailer", "GET", path), 403, "forbidden")
    check_problem(await call(server, "mailer", "GET", "/jobs/1?format=events"), 404, "job_not_found")
    assert b"secret" not in (await call(server, "mailer", "GET", "/top?for=10ms")).body
    page = await server.get("/", {**by("producer"), "Accept": "text/html"})
    assert b"secret" not in page.body


async def test_a_stream_of_jobs_is_limited_to_the_queues_of_its_token(server):
    check_problem(await call(server, "mailer", "POST", "/jobs/stream"), 403, "forbidden")
    id = await enqueue(server, "worker", queue="mail")
    reading = await StreamReader.begin(server, "POST", "/jobs/stream?queue=mail", None, by("mailer"))
    job = await reading.job()
    answer = await call(server, "worker", "POST", f"/jobs/{id}/conclude", {"lease": job["lease"]})
    check_problem(answer, 403, "forbidden")


WATCHED = ["/events", "/queues?format=events", "/queues/q?format=events", "/top"]


async def test_streams_end_with_the_reload_that_revokes_their_token(server, file, monkeypatch):
    monkeypatch.setattr(flow, "LOOK", 60.0)
    id = await enqueue(server, "worker", queue="held")
    jobs = [await StreamReader.begin(server, "POST", f"/jobs/stream?queue={queue}", None, by("worker"))
            for queue in ("held", "q")]  # fmt: skip
    held = await jobs[0].job()
    assert held["id"] == id
    await server.waiting(1)  # the other one has all that it may hold
    shown = [await StreamReader.begin(server, "GET", path, None, by("worker")) for path in WATCHED]
    await until(lambda: len(server.dispatcher.streams) == 6)
    file.write_text("".join(table(name) for name in TOKENS if name != "worker"))
    server.dispatcher.auth.reload()
    id = await enqueue(server, "other", queue="q", type="secret")
    for reading in (*jobs, *shown):
        assert b"secret" not in await reading.rest()
    assert server.untouched(id)
    assert server.engine.get(held["id"]).status == "queued"


async def test_a_stream_whose_token_is_revoked_before_it_begins_sends_no_job(server, file):
    id = await enqueue(server, "other")
    begun = server.dispatcher.streams.add

    def revoked_first(running):
        file.write_text("".join(table(name) for name in TOKENS if name != "worker"))
        server.dispatcher.auth.reload()
        begun(running)

    server.dispatcher.streams.add = revoked_first
    reading = await StreamReader.begin(server, "POST", "/jobs/stream", None, by("worker"))
    assert await reading.rest() == b""
    assert server.untouched(id)


async def test_what_waits_under_a_token_ends_when_the_token_expires(server):
    server.clock.wall_jump(1_795_521_599_000 / 1000 - server.clock.wall() / 1000)
    server.engine.tick()
    id = await enqueue(server, "worker")
    waiting = await server.connect()
    waiting.ask("GET", f"/jobs/{id}?wait=30", None, by("brief"))
    events = await StreamReader.begin(server, "GET", "/events", None, by("brief"))
    await until(
        lambda: server.engine._queue.state.outcomes.count == 1 and len(server.dispatcher.streams) == 1
    )
    server.dispatcher.auth.end_expired()
    assert server.engine._queue.state.outcomes.count == 1, "it has a second left"
    server.clock.advance("1s")
    server.dispatcher.auth.end_expired()
    assert "expired" in check_problem(await waiting.read(), 401, "unauthorized")["detail"]
    await events.rest()


async def test_streams_end_when_their_token_is_revoked_or_expires(server, file, monkeypatch):
    monkeypatch.setattr(flow, "LOOK", 0.02)
    server.clock.wall_jump(1_795_521_599_000 / 1000 - server.clock.wall() / 1000)
    server.engine.tick()
    id = await enqueue(server, "worker")
    jobs = await StreamReader.begin(server, "POST", "/jobs/stream", None, by("worker"))
    waiting = await StreamReader.begin(server, "POST", "/jobs/stream?queue=other", None, by("worker"))
    events = await StreamReader.begin(server, "GET", "/events", None, by("worker"))
    brief = await StreamReader.begin(server, "GET", "/events", None, by("brief"))
    assert (await call(server, "worker", "GET", "/queues")).status == 200
    face = await StreamReader.begin(server, "GET", "/queues?format=events", None, by("worker"))
    await jobs.job()
    file.write_text("".join(table(name) for name in TOKENS if name != "worker"))
    server.dispatcher.auth.reload()
    for reading in (jobs, waiting, events, face):
        await reading.rest()
    assert server.engine.get(id).status == "queued"
    assert len(server.dispatcher.context.events) == 1
    server.clock.advance("1s")
    server.engine.tick()
    await brief.rest()


def test_a_callers_engine_takes_the_parameters_of_the_contract():
    for name, verb in vars(EngineView).items():
        if inspect.isfunction(verb) and not name.startswith("_"):
            taken = list(inspect.signature(getattr(AuthorizedEngine, name)).parameters)
            assert taken == list(inspect.signature(verb).parameters), name
