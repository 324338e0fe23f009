"""The dashboard: its static files, its search, and what its pages say."""

import asyncio
import gzip
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from leasing import later

import jobqueue
from jobqueue import Settings

BROWSER = {"Accept": "text/html", "User-Agent": "Mozilla/5.0", "Sec-Fetch-Site": "same-origin"}
STATIC = Path(jobqueue.__file__).parent / "web" / "static"


async def page(server, path):
    answer = await server.get(path, BROWSER)
    assert answer.status == 200, answer
    return answer.body.decode()


# -- static files -----------------------------------------------------------------------------------


async def test_a_static_file_is_kept_for_ever_under_the_address_of_its_version(server):
    address = re.search(r'"\./(static/dashboard\.css\?v=\w+)"', await page(server, "/"))[1]
    answer = await server.get(f"/{address}", BROWSER)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_static_file_without_its_version_is_asked_for_again_and_not_sent_again(server):
    answer = await server.get("/static/dashboard.js", BROWSER)
    assert answer.headers["cache-control"] == "no-cache"
    again = await server.get("/static/dashboard.js", {**BROWSER, "If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert (await server.get("/healthz")).status == 200  # the connection is as it should be


async def test_modules_import_each_other_under_the_address_of_their_version(server):
    version = (await server.get("/static/dashboard.js")).headers["etag"].strip('"')
    for name in ("dashboard.js", "times.js"):
        body = (await server.get(f"/static/{name}")).body.decode()
        imports = re.findall(r'from "(.*?)"', body)
        assert imports
        assert all(one.endswith(f".js?v={version}") for one in imports)


async def test_nothing_else_is_a_static_file(server):
    for name in ("worker.py", "worker.sh", "", "../routes.py", "..%2froutes.py", "dashboard.css/x"):
        assert (await server.get(f"/static/{name}")).status == 404


def test_all_static_files_together_take_no_more_than_60_kb():
    files = [path for path in STATIC.iterdir() if path.suffix in (".css", ".js", ".svg")]
    assert len(files) > 3
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < 60_000


@pytest.mark.parametrize("settings", [Settings(access_token="0" * 64)])
async def test_static_files_need_no_token_and_pages_do(server):
    assert (await server.get("/static/dashboard.css", BROWSER)).status == 200
    for path in ("/", "/find?q=1"):
        assert (await server.get(path, BROWSER)).status == 401


# -- search -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "page"),
    [
        ("q=123", "jobs/123"), ("q=ada%40example.com", "jobs?text=ada%40example.com"), ("q=", "jobs"),
        ("q=type:mail", "jobs?type=mail"), ("q=tag:a+b", "jobs?tag=a+b"), ("q=12345678901234567", None),
        ("status=dead&type=&text=&order=desc&queue=a", "jobs?status=dead&queue=a&order=desc"),
        ("q=%0d%0aSet-Cookie:x", "jobs?text=Set-Cookie%3Ax"), ("q=//other.example", "jobs?text=%2F%2Fother.example"),
    ],
)  # fmt: skip
async def test_a_search_leads_to_the_page_that_shows_it(server, asked, page):
    answer = await server.get(f"/find?{asked}", BROWSER)
    assert answer.status == 303
    assert answer.headers["location"] == (page or "jobs?text=12345678901234567")
    assert (await server.get("/" + answer.headers["location"], BROWSER)).status in (200, 404)


async def test_the_filter_of_a_list_shows_what_the_address_says(server):
    await server.enqueue(type="mail", tags=["x"])
    shown = await page(server, '/jobs?status=queued&type=mail,"><b>&tag=x&order=desc')
    assert 'name="type" value="mail,&quot;&gt;&lt;b&gt;"' in shown
    assert '<option value="queued" selected>' in shown
    assert '<option value="desc" selected>' in shown


# -- what is wrong ----------------------------------------------------------------------------------


def wrong(shown):
    found = re.search(r'<ul class="wrong">(.*?)</ul>', shown)
    return (
        [re.sub(r"<.*?>", "", line) for line in re.findall(r"<li.*?>(.*?)</li>", found[1])] if found else []
    )


async def test_the_overview_says_first_what_is_wrong(server):
    assert wrong(await page(server, "/")) == []
    await server.enqueue(queue="lonely")
    await server.enqueue(queue="held")
    await server.enqueue(queue="bad", max_attempts=1)
    bad = await server.dequeue(queue="bad")
    await server.post(f"/jobs/{bad['id']}/fail", {"lease": bad["lease"], "error": {"type": "Timeout"}})
    await server.post("/queues/held/pause", {"reason": "for the move <b>"})
    await server.call("PATCH", "/queues/small", {"max_jobs": 1})
    await server.enqueue(queue="small")
    for path in ("/", "/queues"):
        told = wrong(await page(server, path))
        assert told[0].startswith("New error in bad: Timeout of x jobs, first 20")
        assert told[1:4] == [
            "small has 1 of the 1 jobs that it may have",
            "lonely: no consumer takes its 1 queued job; the oldest is 0 s old",
            "small: no consumer takes its 1 queued job; the oldest is 0 s old",
        ]
        assert told[4].startswith("held is paused since ")
        assert told[4].endswith(": for the move &lt;b&gt;")
        assert told[5:] == ["1 dead job in bad"]


async def test_a_kind_of_errors_is_new_for_an_hour(server):
    for error in ({"type": "Timeout"}, {"type": "Timeout"}, "no host\nat all"):
        await server.enqueue(queue="bad")
        job = await server.dequeue(queue="bad")
        await server.post(f"/jobs/{job['id']}/fail", {"lease": job["lease"], "error": error})
    new = (await server.get("/stats")).json["new_errors"]
    assert [(one["queue"], one["type"], one["error"], one["count"]) for one in new] == [
        ("bad", "x", "Timeout", 2), ("bad", "x", "no host", 1)
    ]  # fmt: skip
    shown = await page(server, "/")
    [link, *_] = re.findall(r'href="\./(jobs\?type=x&amp;error=Timeout.*?)"', shown)
    assert await page(server, "/" + link.replace("&amp;", "&"))
    server.clock.advance("61m")
    assert (await server.get("/stats")).json["new_errors"] == []


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_jobs=2)])
async def test_the_overview_tells_that_a_limit_of_the_server_is_nearly_used_up(server):
    await server.enqueue()
    assert not any("limit" in line for line in wrong(await page(server, "/")))
    await server.enqueue()
    assert "A limit of the server is nearly used up: 2 of 2 unfinished jobs." in wrong(
        await page(server, "/")
    )


# -- pages ------------------------------------------------------------------------------------------


async def test_the_page_of_the_server_has_its_limits(server):
    shown = await page(server, "/stats")
    assert '<th scope="row">limits.max_body</th>' in shown
    assert (await server.get("/stats")).headers["content-type"] == "application/json"


async def test_the_charts_of_a_queue_show_as_many_hours_as_the_address_says(server):
    await server.enqueue(queue="mail")
    await later(server, 10)
    for minute in range(3 * 60):
        if minute == 50:
            for _ in range(5):
                await server.enqueue(queue="mail")
        await later(server, 60)
    for query, said in (("", "Nothing happened."), ("?for=6h", "Peak: 5 enqueued")):
        shown = await page(server, f"/queues/mail{query}")
        charts = re.search(r'<div class="charts">(.*?)</div>', shown)[1]
        assert charts.count("<svg") == 2
        assert said in charts
        lengths = re.search(r'<nav class="tabs" aria-label="Length of the charts">(.*?)</nav>', shown)[1]
        assert re.findall(r'href="\.\./queues/mail(.*?)"( aria-current="page")?', lengths) == [
            ("?for=10m", ""),
            ("", "" if query else ' aria-current="page"'),
            ("?for=6h", ' aria-current="page"' if query else ""),
        ]
        assert f'name="_back" value="queues/mail{query}"' in shown  # an action leads back to the same charts
    assert '<time datetime="2027-01-15T08:54:00.000Z">' in charts
    assert "since 3 h ago" in charts
    for query in ("?for=2h", "?for=7d", "?for=10ms"):
        assert "<svg" in await page(server, f"/queues/mail{query}")


def part_links(shown):
    """Returns the links to parts of the charts: the time of day by address."""
    [parts] = re.findall(r'<nav class="tabs" aria-label="Parts of the charts">(.*?)</nav>', shown) or [""]
    return {unescape(path): time for path, time in re.findall(r'href="\.\./(.*?)">(.*?)<', parts)}


async def test_ten_minutes_of_six_hours_are_two_links_away(server):
    await server.enqueue(queue="mail")
    await later(server, 10)
    for minute in range(3 * 60):  # from 08:00 to 11:00
        if minute in (64, 67):
            for _ in range(minute - 60):
                await server.enqueue(queue="mail")
        await later(server, 60)
    hours = part_links(await page(server, "/queues/mail?for=6h"))
    assert list(hours.values()) == ["08:00", "09:00", "10:00"]
    [hour] = [path for path, time in hours.items() if time == "09:00"]
    shown = await page(server, f"/{hour}")
    assert "since 09:00 UTC" in shown
    assert "Peak: 7 enqueued" in shown
    assert 'aria-current="page">1 h' not in shown
    tens = part_links(shown)
    assert list(tens.values()) == ["09:00", "09:10", "09:20", "09:30", "09:40", "09:50"]
    [ten] = [path for path, time in tens.items() if time == "09:00"]
    shown = await page(server, f"/{ten}")
    assert (part_links(shown), "Peak: 7 enqueued" in shown) == ({}, True)
    assert "jobs every 10 s" in shown
    beside = re.findall(r'href="\.\./(queues/mail\?[^"]*)">(?:earlier|later)', shown)
    assert [("Nothing happened." in await page(server, f"/{unescape(path)}")) for path in beside] == [
        True,
        True,
    ]
    for query, beside in (
        ("until=2027-01-15T02:00:00Z", ["later"]), ("until=2030-01-15T02:00:00Z", ["earlier"]),
        ("until=2027-01-15T08:30:00Z", ["later"]), ("until=2027-01-15T11:30:00Z", ["earlier"]),
    ):  # fmt: skip
        shown = await page(server, f"/queues/mail?{query}")
        assert ("Nothing is kept of that time." in shown) == (
            query[6:] < "2027-01-15T08" or query[6:] > "2028"
        )
        assert re.findall(">(earlier|later)</a>", shown) == beside, query
    assert (await server.get("/queues/mail?until=x", BROWSER)).status == 400


async def test_the_page_of_a_schedule_shows_what_it_does_and_did(server):
    await server.call(
        "PUT", "/schedules/nightly", {"cron": "30 2 * * *", "job": {"type": "report", "queue": "q"}}
    )
    await server.post("/schedules/nightly/run")
    shown = await page(server, "/schedules/nightly")
    assert "At 02:30 every day" in shown
    assert 'href="../queues/q"' in shown
    assert re.search(
        r'<td data-label="outcome">manual</td><td class="n" data-label="job"><a href="../jobs/1">', shown
    )
    assert 'data-watch="../live?schedule=nightly"' in shown
    await server.post("/schedules/nightly/pause?reason=tea")
    assert "Paused since" in await page(server, "/schedules/nightly")
    assert 'data-watch="./live?list=schedules"' in await page(server, "/schedules")


async def test_every_page_says_where_it_is_and_marks_its_place(server):
    for path, name in (("/jobs", "jobs"), ("/jobs/groups", "dead"), ("/consumers", "consumers"),
                       ("/schedules", "schedules"), ("/stats", "server"), ("/queues", "queues"),
                       ("/events", "events")):  # fmt: skip
        shown = await page(server, path)
        assert shown.count("<main") == shown.count("<h1") == 1
        assert re.search(rf'aria-current="page">{name}</a>', shown), path


async def test_without_a_database_no_page_leads_to_a_cluster(server):
    assert 'href="./cluster"' not in await page(server, "/")
    assert "shares its jobs with no other" in await page(server, "/cluster")
    text = await server.get("/cluster?format=text")
    assert text.body == b"this server shares its jobs with no other\n"


async def test_the_page_of_events_keeps_its_filter_in_the_address(server):
    left = await server.get("/events?queue=mail&job=&event=", BROWSER)
    assert (left.status, left.headers["location"]) == (303, "events?queue=mail")
    assert 'name="queue" value="mail"' in await page(server, "/events?queue=mail")
    assert (await server.get("/events?event=nonsense", BROWSER)).status == 400


async def test_a_problem_is_a_page_to_a_browser(server):
    for path, status in (("/jobs/77", 404), ("/nothing", 404), ("/jobs?limit=x", 400)):
        told = await server.get(path, BROWSER)
        assert (told.status, told.headers["content-type"]) == (status, "text/html; charset=utf-8"), path
        assert b'role="alert"' in told.body
        assert b"<nav" in told.body
    assert (await server.get("/jobs/77")).headers["content-type"] == "application/problem+json"
    posted = await server.post("/jobs/77/conclude", {}, BROWSER | {"Origin": "http://127.0.0.1"})
    assert posted.headers["content-type"] == "application/problem+json"


# -- the line for curl ------------------------------------------------------------------------------

HOSTILE = "it's\na\t'é' 🎺 \u202e \x7f \U000e0001 $HOME `id` \\ ! <b>&amp;"
COPIED = {
    "type": "it's é $(id)", "queue": "q", "priority": 7, "payload": {HOSTILE: [HOSTILE, 1.50, None]}, "key": "'k'",
    "tags": ["a,b", "'"], "headers": {"h": HOSTILE}, "backoff": [1, 2.5], "max_attempts": None, "lease_for": 30,
}  # fmt: skip
ONE = "0" * 64


def line_of(page):
    return unescape(re.search(r'<pre class="copied">(.*?)</pre>', page, re.DOTALL)[1])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("settings", [Settings(first_id=1), Settings(first_id=1, access_token=ONE)])
async def test_the_line_for_curl_enqueues_the_same_job_again(server, settings):
    headers = {"Authorization": f"Bearer {ONE}"} if settings.access_token else {}
    for path, body, kind in (
        ("/jobs/enqueue", {**COPIED, "unique_key": "u"}, "application/json"),
        ("/queues/thumbs/enqueue?raw=1", b"\xff'\n", "image/png"),
        ("/queues/texts/enqueue?raw=1", HOSTILE.encode(), "text/plain"),
    ):
        made = await server.call("POST", path, body, {**headers, "Content-Type": kind})
        at = {**BROWSER, **headers, "Host": f"127.0.0.1:{server.port}"}
        answer = await server.get(f"/jobs/{made.json['id']}", at)
        line = line_of(answer.body.decode())
        assert line.isprintable()
        assert line.startswith("curl -H" if headers else "curl -d")
        assert ONE not in line
        environment = {"PATH": os.environ["PATH"], "NO_PROXY": "*", "JOBQUEUE_TOKEN": ONE}
        done = await asyncio.to_thread(
            subprocess.run, ["sh"], input=line.encode(), env=environment, capture_output=True, check=True
        )
        one, other = [
            (await server.get(f"/jobs/{id}", headers)).json for id in (made.json["id"], made.json["id"] + 1)
        ]
        assert f'"id":{other["id"]},'.encode() in done.stdout
        for name in ("id", "created_at", "unique_key", "unique_while", "on_conflict"):
            one.pop(name, None), other.pop(name, None)
        assert one == other


@pytest.mark.parametrize(
    "settings", [Settings(first_id=1, trusted_proxies="127.0.0.1", allowed_hosts="q.example")]
)
async def test_the_line_for_curl_has_the_address_of_the_page(server):
    await server.enqueue()
    await server.enqueue(payload="y" * 20_000)
    asked = {"X-Forwarded-Host": "q.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/a/queue"}
    shown = (await server.get("/jobs/1", {**BROWSER, **asked})).body.decode()
    assert line_of(shown).endswith(" https://q.example/a/queue/jobs/enqueue")
    shown = (await server.get("/jobs/1", {**BROWSER, "Host": "[::1]:80"})).body.decode()
    assert line_of(shown).endswith(" 'http://[::1]:80/jobs/enqueue'")
    assert "The job is too long for a line" in await page(server, "/jobs/2")


# -- without pages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [Settings(first_id=1, ui="off")])
async def test_a_server_without_pages_answers_a_browser_as_a_program(server):
    await server.enqueue(queue="q")
    await server.call("PUT", "/schedules/s", {"cron": "@daily", "job": {"type": "x"}})
    for path in ("/queues", "/queues/q", "/queues/q/series", "/jobs", "/jobs/1", "/jobs/groups?by=type", "/consumers",
                 "/schedules", "/schedules/s", "/stats", "/cluster", "/jobs/1?format=html"):  # fmt: skip
        answer = await server.get(path, BROWSER)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json"), path
    told = await server.get("/jobs/77", BROWSER)
    assert (told.status, told.headers["content-type"]) == (404, "application/problem+json")
    assert (await server.get("/", BROWSER)).body == (await server.get("/help")).body
    for path in ("/worker.sh", "/worker.py", "/jobs?format=text"):
        assert (await server.get(path, BROWSER)).headers["content-type"] == "text/plain; charset=utf-8"
    for path in ("/login", "/static/dashboard.css", "/find?q=1", "/live"):
        assert (await server.get(path, BROWSER)).status == 404, path
    for path in ("/login", "/logout", "/form/queues/q/pause", "/form/jobs"):
        assert (await server.post(path, b"", BROWSER)).status == 404, path
