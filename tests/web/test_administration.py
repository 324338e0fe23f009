"""GET /tokens and GET /audit: who may administer, and who did."""

import re
from hashlib import sha256

import pytest
from serving import check_problem

from jobqueue import Settings
from jobqueue.web.access import audit

BROWSER = {"Accept": "text/html", "User-Agent": "Mozilla/5.0", "Sec-Fetch-Site": "same-origin"}
TOKENS = """
[boss]
digest = "{boss}"
rights = ["admin"]

[carrier]
digest = "{carrier}"
rights = ["admin", "dequeue"]
queues = ["parcels", "parcels-*"]

[old]
digest = "{old}"
rights = ["read"]
expires_at = 2020-01-01T00:00:00Z
sqs_secret = "a-secret-of-its-own"
"""


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "tokens.toml"
    digests = {name: sha256(name.encode()).hexdigest() for name in ("boss", "carrier", "old")}
    path.write_text(TOKENS.format(**digests))
    return Settings(first_id=1, tokens_file=str(path))


def by(name, **more):
    return {"Authorization": f"Bearer {name}", **more}


# -- access tokens ----------------------------------------------------------------------------------


async def test_tokens_are_listed_by_name_with_what_they_may_and_never_their_secret(server):
    answer = await server.get("/tokens", by("boss"))
    boss, *others = answer.json["tokens"]
    assert re.fullmatch(r"2027-01-15T0[78]:\d\d:\d\d\.\d{3}Z", boss.pop("last_used_at"))
    assert [boss, *others] == [
        {"name": "boss", "rights": ["admin"], "sqs": False, "expired": False},
        {"name": "carrier", "rights": ["admin", "dequeue"], "queues": ["parcels", "parcels-*"], "sqs": False,
         "expired": False},
        {"name": "old", "rights": ["read"], "sqs": True, "expired": True, "expires_at": "2020-01-01T00:00:00.000Z"},
    ]  # fmt: skip
    for more in ({}, {"Accept": "text/plain"}, BROWSER):
        shown = (await server.get("/tokens", by("boss", **more))).body.decode()
        assert "parcels-*" in shown
        assert "a-secret-of-its-own" not in shown
        assert not re.search("[0-9a-f]{64}", shown)


async def test_it_is_told_when_a_token_was_last_used_with_any_call(server):
    async def last_used():
        rows = (await server.get("/tokens", by("boss"))).json["tokens"]
        return next(row.get("last_used_at") for row in rows if row["name"] == "carrier")

    assert await last_used() is None
    seen = []
    for _ in range(3):  # from the second one on the call is not checked again
        await server.call("POST", "/jobs/dequeue", {"queue": "parcels"}, by("carrier"))
        seen.append(await last_used())
        server.clock.advance("1m")
        server.engine.tick()
    assert seen == sorted(set(seen))
    await server.post(
        "/queues/mail/pause", None, by("carrier")
    )  # not for its queues, so nothing of it is served
    assert (await server.get("/tokens", by("old"))).status == 401


async def test_tokens_come_in_pages(server):
    first = (await server.get("/tokens?limit=2", by("boss"))).json
    assert ([one["name"] for one in first["tokens"]], first["next"]) == (["boss", "carrier"], "carrier")
    rest = (await server.get("/tokens?limit=2&cursor=carrier", by("boss"))).json
    assert ([one["name"] for one in rest["tokens"]], "next" in rest) == (["old"], False)
    page = (await server.get("/tokens?limit=2", by("boss", **BROWSER))).body.decode()
    assert 'href="./tokens?limit=2&amp;cursor=carrier">more</a>' in page
    check_problem(await server.get("/tokens?cursor=%2F", by("boss")), 400, "invalid_field", field="cursor")


async def test_a_token_for_certain_queues_sees_itself_only_and_its_own_calls(server):
    await server.post("/queues/mail/pause", None, by("boss"))
    await server.post("/queues/parcels/pause", None, by("carrier"))
    assert [one["name"] for one in (await server.get("/tokens", by("carrier"))).json["tokens"]] == ["carrier"]
    seen = (await server.get("/audit", by("carrier"))).json
    assert [call["who"] for call in seen["calls"]] == ["carrier"]
    assert "total" not in seen


# -- the audit log ----------------------------------------------------------------------------------


async def test_the_last_administrative_calls_are_listed_the_newest_first(server):
    for _ in range(3):
        await server.call("POST", "/queues/mail/enqueue", {"type": "x"}, by("boss"))
    await server.post("/queues/mail/pause?reason=secret", None, by("boss", **{"X-Request-Id": "one"}))
    server.clock.advance("1m")
    server.engine.tick()
    await server.post("/queues/mail/purge?all=1", None, by("boss", **{"X-Request-Id": "two"}))
    answer = await server.get("/audit", by("boss"))
    assert answer.json["total"] == 2
    assert answer.json["calls"] == [
        {"at": "2027-01-15T08:01:00.000Z", "who": "boss", "method": "POST", "path": "/queues/mail/purge",
         "status": 200, "changed": 3, "peer": "127.0.0.1", "request_id": "two"},
        {"at": "2027-01-15T08:00:00.000Z", "who": "boss", "method": "POST", "path": "/queues/mail/pause",
         "status": 200, "peer": "127.0.0.1", "request_id": "one"},
    ]  # fmt: skip
    assert "secret" not in answer.body.decode()
    assert len((await server.get("/audit?limit=1", by("boss"))).json["calls"]) == 1
    text = (await server.get("/audit?format=text", by("boss"))).body.decode().splitlines()
    assert text[0].split() == ["AT", "WHO", "METHOD", "PATH", "STATUS", "JOBS", "FROM", "REQUEST"]
    assert text[1].split()[1:] == ["boss", "POST", "/queues/mail/purge", "200", "3", "127.0.0.1", "two"]


async def test_only_the_last_calls_are_kept_and_all_are_counted(server, monkeypatch):
    monkeypatch.setattr(server.dispatcher.audit, "_last", audit.deque(maxlen=2))
    for number in range(4):
        await server.post(f"/queues/q{number}/pause", None, by("boss"))
    seen = (await server.get("/audit", by("boss"))).json
    assert ([call["path"] for call in seen["calls"]], seen["total"]) == (
        ["/queues/q3/pause", "/queues/q2/pause"], 4
    )  # fmt: skip


async def test_a_look_at_the_log_is_no_entry_of_it(server):
    for path in ("/audit", "/tokens"):
        assert (await server.get(path, by("boss"))).status == 200
    assert (await server.get("/audit", by("boss"))).json["calls"] == []
    await server.get("/queues/mail/export", by("boss"))
    [call] = (await server.get("/audit", by("boss"))).json["calls"]
    assert call["path"] == "/queues/mail/export"


# -- the pages --------------------------------------------------------------------------------------


async def test_the_pages_of_the_server_lead_to_each_other_for_administrators_only(server):
    await server.post("/queues/mail/pause", None, by("boss"))
    for path, heading in (("/stats", "server"), ("/tokens", "access tokens"), ("/audit", "audit log")):
        shown = (await server.get(path, by("boss", **BROWSER))).body.decode()
        assert f"<h1>{heading}</h1>" in shown
        assert re.search(r'<a href="\./stats" aria-current="page">server</a>', shown)
        assert f'<li><a href=".{path}" aria-current="page">' in shown
        assert shown.count('aria-current="page"') == 2
    assert 'POST <a href="./queues/mail">/queues/mail</a>/pause' in shown


class TestWithoutTokens:
    @pytest.fixture
    def settings(self):
        return Settings(first_id=1)

    async def test_a_person_at_the_machine_sees_them_and_nobody_from_elsewhere(self, server):
        assert (await server.get("/tokens")).json == {"tokens": []}
        assert "has no access tokens" in (await server.get("/tokens", BROWSER)).body.decode()
        await server.post("/queues/mail/pause")
        [call] = (await server.get("/audit")).json["calls"]
        assert "who" not in call
        for path in ("/tokens", "/audit"):
            refused = await server.get(path, {"X-Forwarded-For": "10.0.0.1"})
            check_problem(refused, 403, "forbidden")

    async def test_the_page_of_the_server_leads_a_caller_from_elsewhere_to_neither(self, server):
        shown = (await server.get("/stats", {**BROWSER, "X-Forwarded-For": "10.0.0.1"})).body.decode()
        assert 'href="./audit"' not in shown
