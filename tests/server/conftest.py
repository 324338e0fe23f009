"""Fixtures of these tests. The loop is uvloop's, as in the program; with TEST_ALL=1 each test also runs on asyncio's
own."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from serving import LOOPS, looping
from tornado.ioloop import IOLoop


@pytest.fixture(params=LOOPS if os.environ.get("TEST_ALL") == "1" else ["uvloop"])
def io_loop(request: pytest.FixtureRequest) -> Iterator[IOLoop]:
    yield from looping(request.param)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser of playwright. Skips where that or chromium is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
