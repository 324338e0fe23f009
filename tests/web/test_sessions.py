"""Logging in to the dashboard: a cookie in the place of an access token."""

import asyncio
import re
from hashlib import sha256
from urllib.parse import urlencode

import pytest
from serving import check_problem
from streams import StreamReader

from jobqueue import MemoryEngine, Settings
from jobqueue.engine.opening import open_journal
from jobqueue.storage.data_dir import DataDir
from jobqueue.web.access.identity import Authenticator
from jobqueue.web.access.sessions import Sessions
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.http import Request
from jobqueue.web.streams import flow

ORIGIN = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin", "Host": "127.0.0.1"}
BROWSER = {"Accept": "text/html", "User-Agent": "Mozilla/5.0", **ORIGIN}
TOKENS = """
[boss]
digest = "{boss}"
rights = ["admin"]

[reader]
digest = "{reader}"
rights = ["read"]
expires_at = 2100-01-01T00:00:00Z
"""


def text(**names):
    return TOKENS.format(**{name: sha256(token.encode()).hexdigest() for name, token in names.items()})


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(text(boss="boss-token", reader="reader-token"))
    return path


@pytest.fixture
def settings(tokens):
    return Settings(first_id=1, tokens_file=str(tokens), trusted_proxies="127.0.0.1")


async def log_in(server, token, **more):
    return await server.post("/login", urlencode({"token": token}), {**BROWSER, **more})


async def session(server, token="boss-token"):
    """Returns the headers of a browser that has logged in."""
    answer = await log_in(server, token)
    assert (answer.status, answer.headers["location"]) == (303, "./"), answer
    return {**BROWSER, "Cookie": answer.headers["set-cookie"].partition(";")[0]}


async def test_a_browser_logs_in_looks_acts_and_logs_out(server):
    page = await server.get("/login", BROWSER)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    mine = await session(server)
    front = await server.get("/", mine)
    assert front.status == 200
    assert b"Log out boss" in front.body
    assert (await server.post("/form/queues/q/pause", "", mine)).status == 303
    assert (await server.get("/queues/q")).status == 401
    assert (await server.get("/queues/q?format=json", mine)).json["paused"]
    out = await server.post("/logout", "", mine)
    assert (out.status, out.headers["location"]) == (303, "login")
    assert re.match(r"jobqueue=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict$", out.headers["set-cookie"])
    check_problem(await server.get("/queues/q?format=json", mine), 401, "unauthorized")
    page = await server.get("/queues/q", mine)
    assert page.status == 401
    assert b'<a href="../login">Log in</a>' in page.body


async def test_the_cookie_is_for_this_site_and_no_script(server):
    plain = (await log_in(server, "boss-token")).headers["set-cookie"]
    assert re.match(r"jobqueue=[\w./-]+; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict$", plain)
    more = {"X-Forwarded-Proto": "https", "Origin": "https://127.0.0.1"}
    secure = (await log_in(server, "boss-token", **more)).headers["set-cookie"]
    assert re.match(r"__Host-jobqueue=[\w./-]+; Path=/; .*; HttpOnly; SameSite=Strict; Secure$", secure)
    cookie = {"Cookie": f"other=1; {secure.partition(';')[0]}"}
    assert (await server.get("/queues", {**BROWSER, **cookie})).status == 200


async def test_a_session_has_the_rights_of_its_token(server):
    mine = await session(server, "reader-token")
    assert (await server.get("/stats", mine)).status == 200
    assert (await server.post("/form/queues/q/pause", "", mine)).status == 403
    assert (await server.post("/jobs/enqueue", {"type": "x"}, mine)).status == 403


async def test_a_session_ends_with_its_token_and_in_time(server, tokens):
    mine = await session(server)
    server.clock.advance("11h59m")
    assert (await server.get("/queues", mine)).status == 200
    server.clock.advance("2m")
    ended = await server.get("/queues?format=json", mine)
    assert "log in again" in check_problem(ended, 401, "unauthorized")["detail"]
    assert "Basic" not in ended.headers["www-authenticate"]
    mine = await session(server)
    tokens.write_text(text(boss="another-token", reader="reader-token"))
    server.dispatcher.auth.reload()
    assert (await server.get("/queues", mine)).status == 401
    assert (await server.get("/queues", await session(server, "another-token"))).status == 200


def test_a_session_outlives_a_restart_of_a_server_with_a_journal(tmp_path, tokens, settings, clock):
    cookie = b""

    def caller(folder):
        """Returns who has the session that was begun at the first start."""
        nonlocal cookie
        engine = open_journal(DataDir(str(folder)), settings, clock)
        try:
            auth = Dispatcher(engine).auth
            cookie = cookie or b"jobqueue=" + auth.begin_session("boss-token", "127.0.0.1")[0].encode()
            return auth.caller(Request("GET", "/", "", {b"cookie": cookie}, b"", "127.0.0.1", "1"))
        finally:
            engine.close()

    assert caller(tmp_path / "a").name == "boss"
    assert caller(tmp_path / "a").name == "boss"
    assert (tmp_path / "a" / "secret").stat().st_mode & 0o777 == 0o600
    assert caller(tmp_path / "b") is None  # another server
    tokens.write_text(text(boss="another-token", reader="reader-token"))
    assert caller(tmp_path / "a") is None


def test_a_session_that_was_ended_stays_ended_after_a_restart(tmp_path, settings, clock):
    cookies = []

    async def callers(log_out=False):
        """Returns who has each of two sessions that were begun at the first start."""
        engine = open_journal(DataDir(str(tmp_path / "data")), settings, clock)
        try:
            await engine.load()
            auth = Dispatcher(engine).auth
            if not cookies:
                values = [auth.begin_session("boss-token", "127.0.0.1")[0] for _ in range(2)]
                cookies.extend(b"jobqueue=" + value.encode() for value in values)
            asked = [Request("GET", "/", "", {b"cookie": one}, b"", "127.0.0.1", "1") for one in cookies]
            if log_out:
                await auth.end_session(asked[0])  # the answer comes once that is on disk
            return [found and found.name for found in map(auth.caller, asked)]
        finally:
            engine.close()

    assert asyncio.run(callers()) == ["boss", "boss"]
    assert asyncio.run(callers(log_out=True)) == [None, "boss"]
    clock.advance("11h59m")
    assert asyncio.run(callers()) == [None, "boss"]


def test_a_server_without_pages_knows_no_session(tokens):
    engine = MemoryEngine()
    auths = [Authenticator(Settings(tokens_file=str(tokens), ui=ui), engine) for ui in ("on", "off")]
    cookie = b"jobqueue=" + auths[0].begin_session("boss-token", "127.0.0.1")[0].encode()
    callers = [auth.caller(Request("GET", "/", "", {b"cookie": cookie}, b"", "", "1")) for auth in auths]
    assert [caller and caller.name for caller in callers] == ["boss", None]


async def test_nobody_makes_a_cookie_of_their_own(server):
    mine = await session(server, "reader-token")
    name, _, value = mine["Cookie"].partition("=")
    user, end, code = value.split("/")
    for forged in (
        f"boss/{end}/{code}", f"{user}/{int(end) + 1}/{code}", f"{user}/{end}/{code[:-1]}", f"{user}/{end}/",
        f"{user}/{end}", "", "//", f"{user}/x/{code}", f"{user}/{end}/\xff", f"{user}/{'9' * 40}/{code}",
    ):  # fmt: skip
        assert (await server.get("/queues", {**BROWSER, "Cookie": f"{name}={forged}"})).status == 401, forged
    assert (await server.get("/queues", mine)).status == 200


async def test_wrong_tokens_are_told_and_slowed_down(server):
    for _ in range(10):
        answer = await log_in(server, "a-wrong-one<b>")
        assert answer.status == 403
        assert b"not known here" in answer.body
        assert "set-cookie" not in answer.headers
        assert "www-authenticate" not in answer.headers
    answer = await log_in(server, "boss-token")
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")


async def test_a_page_of_another_origin_logs_nobody_in_and_uses_no_session(server):
    mine = await session(server)
    elsewhere = {"Origin": "http://other.example", "Sec-Fetch-Site": "cross-site"}
    check_problem(await log_in(server, "boss-token", **elsewhere), 403, "cross_origin")
    for path in ("/logout", "/queues/q/pause"):
        check_problem(await server.post(path, "", {**mine, **elsewhere}), 403, "cross_origin")
    for path in ("/form/queues/q/pause", "/form/jobs", "/form/nothing"):
        assert (await server.post(path, "", {**mine, **elsewhere})).status == 403
    assert (await server.get("/queues", mine)).status == 200


async def test_a_token_in_a_header_works_as_before(server):
    assert (await server.get("/", {"Authorization": "Bearer boss-token", **BROWSER})).status == 200
    refused = await server.get("/", BROWSER)
    assert refused.status == 401
    assert "Basic" in refused.headers["www-authenticate"]


async def test_an_open_page_ends_with_its_session_and_no_other_one_does(server, monkeypatch):
    monkeypatch.setattr(flow, "LOOK", 0.01)
    first, second = await session(server), await session(server)
    pages = [await StreamReader.begin(server, "GET", "/live", None, who) for who in (first, second)]
    for page in pages:
        await page.until(b"\n\n")
    await server.post("/logout", b"", first)
    assert await pages[0].rest() == b""
    assert len(server.dispatcher.streams) == 1
    server.clock.advance("12h")
    assert await pages[1].rest() == b""


class TestWithoutTokens:
    @pytest.fixture
    def settings(self):
        return Settings(first_id=1)

    async def test_there_is_nothing_to_log_in_to(self, server):
        for answer in (await server.get("/login", BROWSER), await log_in(server, "x")):
            assert (answer.status, answer.headers["location"]) == (303, "./")


def test_a_server_with_a_certificate_takes_no_cookie_that_another_host_could_have_set():
    for only_secure in (True, False):
        sessions = Sessions(b"secret", only_secure)
        value = sessions.begin("boss", b"digest", 5)
        assert sessions.claim(f"x=1; __Host-jobqueue={value}".encode()).name == "boss"
        assert (sessions.claim(f"jobqueue={value}".encode()) is None) is only_secure
        assert sessions.holds(sessions.claim(f"__Host-jobqueue={value}".encode()), b"digest", 4)
        assert not sessions.holds(sessions.claim(f"__Host-jobqueue={value}".encode()), b"digest", 5)


async def test_who_has_logged_out_logs_in_again_and_ends_no_session_of_another_browser(server, tokens):
    soon = "2027-01-15T09:00:00Z"
    tokens.write_text(text(boss="boss-token", reader="reader-token").replace("2100-01-01T00:00:00Z", soon))
    server.dispatcher.auth.reload()
    first, second = await session(server, "reader-token"), await session(server, "reader-token")
    assert first["Cookie"] != second["Cookie"]
    await server.post("/logout", b"", first)
    assert (await server.get("/stats", first)).status == 401
    assert (await server.get("/stats", second)).status == 200
    assert (await server.get("/stats", await session(server, "reader-token"))).status == 200


def test_the_cookie_that_no_other_host_can_set_comes_first():
    sessions = Sessions(b"secret", only_secure=False)
    good = sessions.begin("ann", b"digest", 1000)
    claim = sessions.claim(f"jobqueue=eve/1000/code; __Host-jobqueue={good}".encode())
    assert claim.name == "ann"
    assert sessions.holds(claim, b"digest", 999)


async def test_a_known_token_logs_in_while_its_address_is_slowed_down(server):
    assert (await server.get("/stats", {"Authorization": "Bearer boss-token"})).status == 200
    for _ in range(60):
        if (answer := await log_in(server, "wrong")).status == 429:
            break
    assert answer.status == 429
    assert (await log_in(server, "boss-token")).status == 303
