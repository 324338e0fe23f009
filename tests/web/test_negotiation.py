"""Content negotiation: one URL as JSON, text or a page, by `?format=` or by `Accept`."""

import re
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
def test_the_preferred_format_of_the_client_is_chosen(accept, expected):
    assert face(accept) == expected


def test_the_format_in_the_query_wins():
    assert face(BROWSER, "limit=1&format=text") == "text"
    assert face(BROWSER, "Format=json") == "json"


PATHS = ["/queues", "/queues/default", "/jobs", "/jobs/1"]


class Page(HTMLParser):
    """Collects the texts and links of a page. Fails if it is malformed or contains something that could run."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.links, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert tag not in ("iframe", "img", "object", "style"), tag
        if tag == "script":  # one of the server's own files, and nothing between its tags
            assert re.fullmatch(r"[./]+static/dashboard\.js\?v=\w+", dict(attributes)["src"])
        assert not any(name.startswith("on") for name, _ in attributes)
        # Links are relative, "./" and "../" being the root; here they are shown as paths.
        self.links += [
            re.sub(r"^\.\.?/", "/", value) for name, value in attributes if name == "href" and tag == "a"
        ]
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        assert self.open[-1:] != ["script"]
        self.texts.append(data)


@pytest.mark.parametrize("path", PATHS)
async def test_json_is_the_default_format(server, path):
    await server.enqueue()
    plain = await server.get(path)
    assert plain.headers["content-type"] == "application/json"
    for query, headers in (("?format=json", {"Accept": BROWSER}), ("", {"Accept": "*/*"})):
        assert (await server.get(path + query, headers)).headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", PATHS)
async def test_a_page_may_load_and_run_only_the_files_of_the_server(server, path):
    await server.enqueue()
    for answer in (await server.get(f"{path}?format=html"), await server.get(path, {"Accept": BROWSER})):
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'; style-src 'self'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        Page(answer.body.decode())


async def test_text_from_clients_is_escaped_in_pages(server):
    id = await server.enqueue(
        type=NASTY, payload={NASTY: NASTY}, tags=[NASTY], key=NASTY, headers={NASTY: NASTY}
    )
    job = await server.dequeue(consumer=NASTY)
    await server.post(f"/jobs/{id}/heartbeat", {"lease": job["lease"], "message": NASTY + "\x1b[2J\r\n"})
    await server.post(f"/jobs/{id}/fail", {"lease": job["lease"], "error": NASTY})
    await server.post("/queues/default/pause", {"reason": NASTY})
    await server.enqueue(type=NASTY, queue="held")
    await server.dequeue(queue="held", consumer=NASTY)
    paths = (
        f"/jobs/{id}",
        "/queues/default",
        "/queues",
        "/jobs",
        "/jobs/groups?by=type,error",
        "/consumers",
        "/",
    )
    for path in paths:
        page = (await server.get(path, {"Accept": BROWSER})).body.decode()
        Page(page)
        assert page.count("<script") == 1
        text = (await server.get(path, {"Accept": "text/plain"})).body.decode() if path != "/" else ""
        for shown in (page, text):
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    page = Page((await server.get(f"/jobs/{id}?format=html")).body.decode())
    assert any("<script>alert(1)</script>" in text for text in page.texts)


async def test_queues_are_shown_as_a_text_table(server):
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


@pytest.mark.parametrize("format", ["text", "html"])
async def test_names_in_json_of_clients_mean_nothing_to_the_page(server, format):
    own = {
        "history": 5,
        "error": {"details": {"history": [1]}},
        "payload": {"name": "x"},
        "\x1b[2J\n\u202e": 1,
    }
    answer = await server.call("PATCH", "/queues/default", {"attributes": own})
    assert answer.status == 200
    id = await server.enqueue(max_attempts=1)
    job = await server.dequeue()
    error = {"type": "Refused", "message": "no", "details": own}
    assert (await server.post(f"/jobs/{id}/fail", {"lease": job["lease"], "error": error})).status == 200
    for path, before in (("/queues/default", "settings.attributes"), (f"/jobs/{id}", "error")):
        shown = (await server.get(f"{path}?format={format}")).body.decode()
        for name in ("history", "error.details.history", "payload.name", "\\u001b[2J\\u000a\\u202e"):
            assert f"{before}.{name}" in shown
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)


async def test_groups_of_dead_jobs_are_a_text_table_and_a_page(server):
    for type in ("mail", "mail", "report"):
        await server.enqueue(type=type, max_attempts=1)
        job = await server.dequeue()
        error = {"type": "Refused", "message": f"no host\nfor {job['id']}"}
        await server.post(f"/jobs/{job['id']}/fail", {"lease": job["lease"], "error": error})
    lines = (await server.get("/jobs/groups?format=text")).body.decode().splitlines()
    assert [line.split() for line in lines] == [
        ["COUNT", "DEAD", "RETRYING", "TYPE", "ERROR"],
        ["2", "2", "0", "mail", "Refused"],
        ["1", "1", "0", "report", "Refused"],
    ]
    text = (await server.get("/jobs/groups?format=text&limit=1")).body.decode()
    assert text.endswith("1 more in other groups\n")
    assert (await server.get("/jobs/groups?format=text&queue=empty")).body == b"COUNT  DEAD  RETRYING\n"
    page = Page((await server.get("/jobs/groups?format=html")).body.decode())
    assert {"mail", "Refused"} <= set(page.texts)


async def test_consumers_are_text_tables_and_a_page(server):
    ids = [await server.enqueue(queue="mail") for _ in range(2)]
    first = await server.dequeue(queue="mail", consumer="ann")
    await server.dequeue(queue="mail", consumer="ann")
    waiting = await server.ask("POST", "/jobs/dequeue?queues=a,b&wait=30&consumer=ben")
    await server.waiting(1)
    text = (await server.get("/consumers?format=text")).body.decode()
    holding, waits = (part.splitlines() for part in text.split("\n\n"))
    assert holding[0].split("  ")[0] == "CONSUMER"
    assert holding[1].split()[:2] == ["ann", "2"]
    assert holding[1].split()[3:6] == [str(ids[0]), "mail", "x"]
    assert holding[1].split()[-2:] == [first["started_at"], first["lease_expires_at"]]
    assert holding[2].split()[:3] == [str(ids[1]), "mail", "x"]
    assert waits[0].split() == ["WAITING", "QUEUES", "UNTIL"]
    assert waits[1].split()[:3] == ["ben", "a,", "b"]
    page = Page((await server.get("/consumers?format=html")).body.decode())
    assert {"ann", "a, b"} <= set(page.texts)
    waiting.close()


async def test_jobs_are_shown_as_a_text_table(server):
    ids = [await server.enqueue(queue=queue, priority=7) for queue in ("a", "b", "a")]
    text = (await server.get("/jobs?queue=a&format=text")).body.decode()
    lines = text.splitlines()
    assert lines[0].split() == ["ID", "STATUS", "QUEUE", "TYPE", "PRIORITY", "ATTEMPTS", "CREATED", "ERROR"]
    assert [line.split()[:6] for line in lines[1:]] == [
        [str(id), "queued", "a", "x", "7", "0"] for id in (ids[0], ids[2])
    ]
    page = (await server.get("/jobs?format=text&limit=1")).body.decode()
    assert page.endswith(f"more: cursor={ids[0]}\n")
    check_problem(await server.get("/jobs?format=events"), 400, "invalid_field", field="format")
    answer = await server.get("/jobs", {"Accept": "text/event-stream"})
    assert answer.headers["content-type"] == "application/json"


async def test_a_job_is_shown_as_text_with_one_fact_on_each_line(server):
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


async def test_the_lines_of_an_error_are_lines_of_the_text_and_of_the_page(server):
    id = await server.enqueue(max_attempts=1)
    lease = (await server.dequeue())["lease"]
    await server.post(f"/jobs/{id}/fail?lease={lease}", {"error": "exit 1\r\n\tat line 2\n\u001b[31mred"})
    text = (await server.get(f"/jobs/{id}?format=text")).body.decode()
    indent = " " * 14
    assert f"error         exit 1\n{indent}\tat line 2\n{indent}\\u001b[31mred\n" in text
    page = (await server.get(f"/jobs/{id}", {"Accept": BROWSER})).body.decode()
    assert "exit 1\n\tat line 2\n\\u001b[31mred" in page


async def test_an_error_with_details_is_a_message_and_its_details(server):
    id = await server.enqueue(max_attempts=1)
    lease = (await server.dequeue())["lease"]
    details = {"class": "builtins.ValueError", "traceback": "Traceback:\n  line 1\n", "more": {"a": 1}}
    error = {"type": "ValueError", "message": "no\nsuch host", "details": details}
    await server.post(f"/jobs/{id}/fail?lease={lease}", {"error": error})
    lines = (await server.get(f"/jobs/{id}?format=text")).body.decode().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("error "))
    indent = " " * len("error.traceback  ")
    assert lines[at : at + 6] == [
        "error            ValueError: no",
        f"{indent}such host",
        "error.class      builtins.ValueError",
        "error.traceback  Traceback:",
        f"{indent}  line 1",
        "error.more.a     1",
    ]
    [attempt] = [line for line in lines if line.startswith("attempt 1 ")]
    assert attempt.endswith("  ValueError: no")


async def test_a_long_payload_is_cut_short(server):
    id = await server.enqueue(payload="y" * 100_000)
    text = (await server.get(f"/jobs/{id}?format=text")).body.decode()
    assert len(text) < 5000
    assert "100,000 characters" in text


async def test_the_pages_link_to_each_other(server):
    id = await server.enqueue(queue="a")
    front = Page((await server.get("/", {"Accept": BROWSER})).body.decode())
    assert "/queues/a" in front.links
    assert any("curl" in text for text in front.texts)
    assert f"/jobs/{id}" in Page((await server.get("/queues/a", {"Accept": BROWSER})).body.decode()).links
    assert "/queues/a" in Page((await server.get(f"/jobs/{id}", {"Accept": BROWSER})).body.decode()).links


async def test_pages_of_queues_have_a_link_to_the_next(server):
    names = [f"q{number:04}" for number in range(1001)]
    for some in (names[:1000], names[1000:]):
        await server.post("/jobs/enqueue", [{"type": "x", "queue": name} for name in some])
    for path, shown in (("/", 100), ("/queues", 100), ("/queues?limit=1000", 1000), ("/queues?limit=2", 2)):
        links = Page((await server.get(path, {"Accept": BROWSER})).body.decode()).links
        queues = [link for link in links if link.startswith("/queues/")]
        assert queues[-shown:] == [f"/queues/{name}" for name in names[:shown]]
        assert set(queues) == set(queues[-shown:])
        limit = path.partition("?")[2]
        assert links[-1] == "/queues?" + "&".join(filter(None, (limit, f"cursor={names[shown - 1]}")))
    rest = Page((await server.get(f"/queues?cursor={names[999]}", {"Accept": BROWSER})).body.decode()).links
    assert rest[-1] == "/queues/q1000"


async def test_pages_of_jobs_have_a_link_to_the_next(server):
    ids = [await server.enqueue(queue="a", tags=["x&y"]) for _ in range(3)]
    link, found = "/jobs?queue=a&tag=x%26y&limit=2", []
    for count in (2, 1):
        links = Page((await server.get(link, {"Accept": BROWSER})).body.decode()).links
        jobs = [one for one in links if re.fullmatch(r"/jobs/\d+", one)]
        assert len(jobs) == count
        found += jobs
        link = links[-1]
    assert found == [f"/jobs/{id}" for id in ids]


async def test_long_text_is_wrapped_and_names_and_numbers_are_not(server):
    id = await server.enqueue(payload="y" * 3000)
    job = (await server.get(f"/jobs/{id}", {"Accept": BROWSER})).body.decode()
    style = (await server.get(re.search(r'href="\.\.(/static/dashboard.css[^"]*)', job)[1])).body.decode()
    assert re.search(r"td,th\{[^}]*white-space:nowrap", style)
    assert re.search(r"\.t\{[^}]*overflow-wrap:anywhere", style)
    facts = set(re.findall(r'<tr><th scope="row">(\w+)</th><td class="t">', job))
    assert {"status", "type", "queue"} < facts
    assert "<h2>payload</h2><pre>yyy" in job
    assert re.search(r"pre\{[^}]*white-space:pre-wrap", style)
    front = (await server.get("/", {"Accept": BROWSER})).body.decode()
    assert (
        '<td class="t" data-label="queue"><a href="./queues/default">default</a></td>'
        '<td class="n" data-label="queued">1</td>'
    ) in front


async def test_the_root_is_text_for_clients_that_are_no_browsers(server):
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        answer = await server.get("/", headers)
        assert answer.headers["content-type"].startswith("text/plain")


async def test_a_refusal_is_a_problem_document_in_every_format(server):
    for query in ("", "?format=text", "?format=html", "?format=events"):
        check_problem(await server.get(f"/jobs/77{query}"), 404, "job_not_found")
    check_problem(await server.get("/queues?format=xml"), 400, "invalid_field", field="format")
    check_problem(await server.get("/queues?format=text&format=html"), 400, "invalid_field", field="format")
    check_problem(await server.get("/queues/a?formt=text"), 400, "unknown_field", nearest="format")


async def test_a_job_can_be_waited_for_in_every_format(server):
    id = await server.enqueue()
    waiting = await server.ask("GET", f"/jobs/{id}?wait=30&format=text")
    await server.dequeue()
    await server.post(f"/jobs/{id}/conclude")
    assert b"concluded" in (await waiting.read("GET")).body


async def test_every_format_has_an_etag(server):
    id = await server.enqueue()
    tags = {
        (await server.get(f"/jobs/{id}?format={face}")).headers["etag"] for face in ("json", "text", "html")
    }
    assert tags == {'"1"'}


async def test_a_page_has_no_style_of_its_own(server):
    answer = await server.get("/queues?format=html")
    assert "style-src 'self'" in answer.headers["content-security-policy"]
    assert b"<style" not in answer.body
    assert b"style=" not in answer.body
