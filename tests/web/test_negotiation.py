"""One URL, several faces: JSON, text, a page; by `?format=` or by `Accept`."""

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from serving import check_problem

from jobqueue.web.http import Request
from jobqueue.web.operations.negotiation import chosen

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
NASTY = "<script>alert(1)</script>\"'&\x9b31m\u202e"


def face(accept=None, query=""):
    headers = {} if accept is None else {b"accept": accept.encode()}
    return chosen(Request("GET", "/queues", query, headers, b"", "", ""))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "json"), ("*/*", "json"), ("", "json"), ("image/png", "json"), (BROWSER, "html"),
        ("text/plain", "text"), ("text/event-stream", "events"), ("TEXT/Plain; q=1.0", "text"),
        ("application/json, text/plain, */*", "json"), ("text/plain, application/json;q=0.9", "text"),
        ("text/*;q=0.5, application/json;q=0.4", "html"), ("text/html;q=0, text/plain;q=0.1", "text"),
        ("text/html;q=0, */*", "json"), ("text/html;q=odd, text/plain;q=0.2", "text"), (",;,", "json"),
    ],
)  # fmt: skip
def test_what_a_client_likes_best_is_chosen(accept, expected):
    assert face(accept) == expected


def test_the_format_in_the_query_wins():
    assert face(BROWSER, "limit=1&format=text") == "text"
    assert face(BROWSER, "Format=json") == "json"


PATHS = ["/queues", "/queues/default", "/jobs", "/jobs/1"]


class Page(HTMLParser):
    """The texts and links of a page; fails where it is not well formed, or holds what could run."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.links, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "iframe", "img", "form", "object"), tag
        assert not any(name.startswith("on") for name, _ in attributes)
        self.links += [value for name, value in attributes if name == "href"]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("path", PATHS)
async def test_json_is_the_face_for_everybody_who_says_nothing(server, path):
    await server.enqueue()
    plain = await server.get(path)
    assert plain.headers["content-type"] == "application/json"
    for query, headers in (("?format=json", {"Accept": BROWSER}), ("", {"Accept": "*/*"})):
        assert (await server.get(path + query, headers)).headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", PATHS)
async def test_a_page_may_load_and_run_nothing(server, path):
    await server.enqueue()
    for answer in (await server.get(f"{path}?format=html"), await server.get(path, {"Accept": BROWSER})):
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        Page(answer.body.decode())


async def test_whatever_a_client_sent_is_shown_and_harms_nobody(server):
    id = await server.enqueue(
        type=NASTY, payload={NASTY: NASTY}, tags=[NASTY], key=NASTY, headers={NASTY: NASTY}
    )
    job = await server.dequeue(consumer=NASTY)
    await server.post(f"/jobs/{id}/heartbeat", {"lease": job["lease"], "message": NASTY + "\x1b[2J\r\n"})
    await server.post(f"/jobs/{id}/fail", {"lease": job["lease"], "error": NASTY})
    await server.post("/queues/default/pause", {"reason": NASTY})
    for path in (f"/jobs/{id}", "/queues/default", "/queues", "/jobs", "/"):
        page = (await server.get(path, {"Accept": BROWSER})).body.decode()
        Page(page)
        assert "<script" not in page
        text = (await server.get(f"{path}?format=text")).body.decode() if path != "/" else ""
        for shown in (page, text):
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    page = Page((await server.get(f"/jobs/{id}?format=html")).body.decode())
    assert any("<script>alert(1)</script>" in text for text in page.texts)


async def test_queues_as_a_table(server):
    await server.enqueue(queue="a")
    await server.enqueue(queue="long-name-of-a-queue")
    await server.post("/queues/a/pause")
    lines = (await server.get("/queues?format=text")).body.decode().splitlines()
    assert lines[0].split()[:4] == ["QUEUE", "QUEUED", "RUNNING", "LATER"]
    assert [line.split()[:2] for line in lines[1:]] == [["a", "1"], ["long-name-of-a-queue", "1"]]
    assert len({line.index("1") for line in lines[1:]}) == 1, "the numbers stand in one column"
    assert lines[1].endswith("paused")
    page = (await server.get("/queues?format=text&limit=1")).body.decode()
    assert page.endswith("more: cursor=a\n")


async def test_jobs_as_a_table(server):
    ids = [await server.enqueue(queue=queue, priority=7) for queue in ("a", "b", "a")]
    text = (await server.get("/jobs?queue=a&format=text")).body.decode()
    lines = text.splitlines()
    assert lines[0].split() == ["ID", "STATUS", "QUEUE", "TYPE", "PRIORITY", "ATTEMPTS", "CREATED"]
    assert [line.split()[:6] for line in lines[1:]] == [
        [str(id), "queued", "a", "x", "7", "0"] for id in (ids[0], ids[2])
    ]
    page = (await server.get("/jobs?format=text&limit=1")).body.decode()
    assert page.endswith(f"more: cursor={ids[0]}\n")
    check_problem(await server.get("/jobs?format=events"), 400, "invalid_field", field="format")
    answer = await server.get("/jobs", {"Accept": "text/event-stream"})
    assert answer.headers["content-type"] == "application/json"


async def test_a_job_as_text_one_fact_a_line(server):
    id = await server.enqueue(payload={"big": 12345678901234567890, "f": 1.10})
    text = (await server.get(f"/jobs/{id}?format=text")).body.decode()
    facts = dict(line.split(None, 1) for line in text.splitlines())
    assert (facts["id"], facts["status"]) == (str(id), "queued")
    assert facts["payload"] == '{"big":12345678901234567890,"f":1.1}'
    await server.dequeue()
    await server.post(f"/jobs/{id}/conclude", {"result": "done"})
    text = (await server.get(f"/jobs/{id}?format=text")).body.decode()
    assert "\nresult       done\n" in text
    assert "\nattempt 1 " in text


async def test_a_long_payload_is_cut_short(server):
    id = await server.enqueue(payload="y" * 100_000)
    text = (await server.get(f"/jobs/{id}?format=text")).body.decode()
    assert len(text) < 5000
    assert "100,000 characters" in text


async def test_the_pages_lead_to_each_other(server):
    id = await server.enqueue(queue="a")
    front = Page((await server.get("/", {"Accept": BROWSER})).body.decode())
    assert "/queues/a" in front.links
    assert any("curl" in text for text in front.texts)
    assert f"/jobs/{id}" in Page((await server.get("/queues/a", {"Accept": BROWSER})).body.decode()).links
    assert "/queues/a" in Page((await server.get(f"/jobs/{id}", {"Accept": BROWSER})).body.decode()).links


async def test_queues_that_are_on_no_page_are_on_the_next(server):
    names = [f"q{number:04}" for number in range(1001)]
    for some in (names[:1000], names[1000:]):
        await server.post("/jobs/enqueue", [{"type": "x", "queue": name} for name in some])
    for path, shown in (("/", 1000), ("/queues", 1000), ("/queues?limit=2", 2)):
        links = Page((await server.get(path, {"Accept": BROWSER})).body.decode()).links
        queues = [link for link in links if link.startswith("/queues/")]
        assert queues == [f"/queues/{name}" for name in names[:shown]]
        assert links[-1] == f"/queues?cursor={names[shown - 1]}"
    rest = Page((await server.get(links[-1], {"Accept": BROWSER})).body.decode()).links
    assert rest[-1] == "/queues/q1000"


async def test_jobs_that_are_on_no_page_are_on_the_next(server):
    ids = [await server.enqueue(queue="a", tags=["x&y"]) for _ in range(3)]
    link, found = "/jobs?queue=a&tag=x%26y&limit=2", []
    for count in (2, 1):
        links = Page((await server.get(link, {"Accept": BROWSER})).body.decode()).links
        jobs = [one for one in links if re.fullmatch(r"/jobs/\d+", one)]
        assert len(jobs) == count
        found += jobs
        link = links[-1]
    assert found == [f"/jobs/{id}" for id in ids]


async def test_long_text_is_broken_into_lines_and_names_and_numbers_are_not(server):
    id = await server.enqueue(payload="y" * 3000)
    job = (await server.get(f"/jobs/{id}", {"Accept": BROWSER})).body.decode()
    assert re.search(r"td,th\{[^}]*white-space:nowrap", job)
    assert re.search(r"\.t\{[^}]*overflow-wrap:anywhere", job)
    assert job.count("anywhere") == 1
    assert {"status", "type", "payload"} < set(re.findall(r'<tr><td>(\w+)</td><td class="t">', job))
    front = (await server.get("/", {"Accept": BROWSER})).body.decode()
    assert '<td class="t"><a href="/queues/default">default</a></td><td class="n">1</td>' in front


async def test_the_front_is_text_for_all_others(server):
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        answer = await server.get("/", headers)
        assert answer.headers["content-type"].startswith("text/plain")


async def test_a_refusal_is_a_problem_document_in_every_face(server):
    for query in ("", "?format=text", "?format=html", "?format=events"):
        check_problem(await server.get(f"/jobs/77{query}"), 404, "job_not_found")
    check_problem(await server.get("/queues?format=xml"), 400, "invalid_field", field="format")
    check_problem(await server.get("/queues?format=text&format=html"), 400, "invalid_field", field="format")
    check_problem(await server.get("/queues/a?formt=text"), 400, "unknown_field", nearest="format")


async def test_a_job_can_be_waited_for_in_every_face(server):
    id = await server.enqueue()
    waiting = await server.ask("GET", f"/jobs/{id}?wait=30&format=text")
    await server.dequeue()
    await server.post(f"/jobs/{id}/conclude")
    assert b"concluded" in (await waiting.read("GET")).body


async def test_an_etag_goes_with_each_face(server):
    id = await server.enqueue()
    tags = {
        (await server.get(f"/jobs/{id}?format={face}")).headers["etag"] for face in ("json", "text", "html")
    }
    assert tags == {'"1"'}


async def test_the_style_of_a_page_is_the_one_that_its_policy_allows(server):
    answer = await server.get("/queues?format=html")
    style = re.search(rb"<style>(.*?)</style>", answer.body)[1]
    digest = b64encode(sha256(style).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in answer.headers["content-security-policy"]
    assert b"style=" not in answer.body
