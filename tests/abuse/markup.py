"""Puts markup into every field of a job and a queue, and checks with a parser and a browser that pages escape it."""

import html.parser
import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.abuse.harness import Check, Target

# The title of a page in which a script has run.
_RAN = "it has run"
_RUN = f"document.title='{_RAN}'"
_EVIL = f'"\'></title></pre><script>{_RUN}</script><img src=x onerror="{_RUN}"><svg/onload={_RUN.replace(" ", "&#32;")}>'
_SHORT = "<svg/onload=document.title='it&#32;has&#32;run'>"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


# The address of the server's own script.
_OWN = re.compile(r"[./]*static/[a-z]+\.js\?v=\w+").fullmatch


class _Page(html.parser.HTMLParser):
    """The elements and scripts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        own = tag == "script" and _OWN(dict(attributes).get("src") or "")
        self.found.append("own script" if own else tag)
        self.found += [
            name for name, value in attributes if name.startswith("on") or "javascript:" in (value or "")
        ]


async def scripts_in_fields(target: Target, scale: float) -> list[Check]:
    """Puts markup into every field that a page may show."""
    jobs = [await _make(target, end) for end in ("heartbeat", "fail", "fail in words", "conclude")]
    await target.call("POST", "/queues/q/pause", {"reason": _EVIL})
    browser = {"User_Agent": "Mozilla/5.0", "Accept": "text/html", "Host": f"localhost:{target.port}"}
    bad: list[str] = []
    shown = 0
    paths = ["/", "/queues", "/queues/q", "/jobs", *(f"/jobs/{id}" for id in jobs), "/stats"]
    pages: dict[str, str] = {}
    for path in paths:
        answer = await target.call("GET", path, **browser)
        page = _Page()
        if answer.headers["content-type"].startswith("text/html"):
            pages[path] = answer.body.decode()
            page.feed(pages[path])
        elif answer.headers.get("x-content-type-options") != "nosniff":
            bad.append(f"{path}: it may be taken for a page")
        policy = answer.headers.get("content-security-policy", "")
        markup = [tag for tag in page.found if tag in ("script", "iframe") or tag.startswith("on")]
        bad += [f"{path}: {tag}" for tag in markup]
        if "frame-ancestors 'none'" not in policy or "unsafe-inline" in policy.split("style-src")[0]:
            bad.append(f"{path}: policy {policy!r}")
        shown += "&lt;script&gt;" in answer.body.decode()
    checks = [
        Check("no page has any of it as markup", "; ".join(bad[:3]) or f"{len(paths)} addresses", not bad),
        Check("it is shown as text", f"{shown} pages", shown >= len(jobs)),
    ]
    return checks + await _in_a_browser(f"http://localhost:{target.port}", pages)


async def _make(target: Target, end: str) -> int:
    """Makes a job of queue q with markup in all its fields, and finishes it as `end` says, with more of it."""
    job = {
        "type": _EVIL, "queue": "q", "payload": {_EVIL: _EVIL}, "key": _SHORT, "tags": [_SHORT],
        "headers": {"a": _EVIL}, "unique_key": _EVIL + end,
    }  # fmt: skip
    made = await target.call("POST", "/jobs/enqueue", job)
    assert made.status == 201, made
    id: int = made.json["id"]
    lease = (await target.call("POST", "/jobs/dequeue", {"queue": "q", "consumer": _SHORT})).json["lease"]
    told = {"lease": lease, "progress": 1, "message": _EVIL}
    assert (await target.call("POST", f"/jobs/{id}/heartbeat", told)).status == 200
    if end.startswith("fail"):
        error = (
            _EVIL if end == "fail in words" else {"type": _EVIL, "message": _EVIL, "details": {_EVIL: _EVIL}}
        )
        failed = {"lease": lease, "error": error, "retry": False}
        assert (await target.call("POST", f"/jobs/{id}/fail", failed)).status == 200
    if end == "conclude":
        concluded = {"lease": lease, "result": {_EVIL: _EVIL}}
        assert (await target.call("POST", f"/jobs/{id}/conclude", concluded)).status == 200
    return id


async def _in_a_browser(server: str, pages: dict[str, str]) -> list[Check]:
    """Opens the pages in a real browser, if there is one. Also without the headers that forbid scripts: escaping alone
    must be enough."""
    must = "in headless chromium nothing of it runs"
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None or find_spec("playwright") is None:
        return [Check(must, "skipped: chromium or playwright is not installed", None)]
    from playwright.async_api import async_playwright

    with tempfile.TemporaryDirectory() as folder:
        async with async_playwright() as driver:
            chromium = await driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            page = await chromium.new_page()
            run = [await _title(page, _plain(folder, markup)) for markup in (_EVIL, _SHORT)]
            titles = [await _title(page, server + path) for path in pages]
            bare = [await _title(page, _plain(folder, text)) for text in pages.values()]
            await chromium.close()
    return [
        Check("there it would run, were it not escaped", str(run), run == [_RAN, _RAN]),
        Check(must, f"{len(titles)} pages", _RAN not in titles and all(titles)),
        Check("nor without the headers that forbid it", f"{len(bare)} pages", _RAN not in bare and all(bare)),
    ]


def _plain(folder: str, markup: str) -> str:
    """The address of a page with unescaped `markup`, which may be a whole page."""
    page = Path(folder, "plain.html")
    page.write_text(
        markup if markup.startswith("<!doctype") else f"<!doctype html><title>a page</title>{markup}"
    )
    return page.as_uri()


async def _title(page: Any, address: str) -> str:
    """The title of the page at `address` after its scripts have run; "" if it has none."""
    await page.goto(address, wait_until="load")
    title: str = await page.title()
    return title
