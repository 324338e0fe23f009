"""Makes the pictures of docs/dashboard.md: the pages of a server that has served a small shop for two hours.

    .venv/bin/python scripts/screenshots.py [FOLDER]

It needs playwright and chromium, which tests/requirements.txt names. The server runs in this process under a
clock that is moved by hand, so the hours take a few seconds and each run gives the same pages. FOLDER is
docs/screenshots unless given.
"""

import asyncio
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.async_api import Page, async_playwright  # noqa: E402  # the path comes first

from jobqueue import Settings  # noqa: E402
from jobqueue.engine.local import LocalEngine  # noqa: E402
from jobqueue.model import (  # noqa: E402
    Delivery,
    DequeueRequest,
    Job,
    JobTemplate,
    LeaseClaim,
    NewJob,
    Options,
    Plan,
)
from jobqueue.testing import ManualClock  # noqa: E402
from jobqueue.web.dispatch import Dispatcher  # noqa: E402
from jobqueue.web.tornado_app import application  # noqa: E402

STEP = 10_000  # milliseconds between two moments
MOMENTS = 720
# Queue: types, jobs that come in a moment, jobs that are taken in one, parts that fail.
FLOW: dict[str, tuple[tuple[str, ...], float, float, float]] = {
    "mail": (("mail.welcome", "mail.receipt", "mail.reminder"), 22, 24, 0.02),
    "thumbs": (("thumb.make",), 14, 15, 0.01),
    "invoices": (("invoice.print", "invoice.send"), 5, 6, 0.10),
    "search": (("search.index",), 9, 8.2, 0.0),
    "webhooks": (("webhook.deliver",), 7, 8, 0.05),
}
ERRORS = {
    "mail": '{"type":"SMTPRecipientsRefused","message":"550 no such user"}',
    "thumbs": '{"type":"UnidentifiedImageError","message":"cannot identify image file"}',
    "invoices": '{"type":"PrinterOffline","message":"tray 2 is empty"}',
    "webhooks": '{"type":"ConnectTimeout","message":"https://hooks.example.com: no answer in 10 s"}',
}
PAGES = (
    # Name, page, dark, width, height.
    ("overview", "", False, 900, 570),
    ("overview-dark", "", True, 900, 570),
    ("queue", "queues/invoices", False, 900, 570),
    ("dead", "jobs/groups?by=queue,type,error", False, 900, 400),
    ("job", "jobs/{dead}", True, 900, 700),
    ("phone", "", False, 320, 700),
)  # fmt: skip


class Shop:
    """The server of a small shop."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.engine = LocalEngine(Settings(first_id=1000), self.clock)
        self._random = random.Random(7)

    def two_hours(self) -> None:
        engine = self.engine
        for name, settings in (
            ("search", {"max_jobs": 700}),
            ("mail", {"lease_for": 30_000, "max_attempts": 5}),
        ):
            engine.configure(name, settings)
        every_day = Plan(
            "nightly-report", JobTemplate("report.sales"), cron="30 2 * * *", timezone="Europe/Berlin"
        )
        engine.put_schedule(every_day, None)
        running: list[tuple[int, Delivery]] = []
        for moment in range(MOMENTS):
            for name in FLOW:
                self._enqueue(name, moment)
                running += [(moment + 1, taken) for taken in self._take(name, moment)]
            now = [taken for due, taken in running if due <= moment]
            running = [each for each in running if each[0] > moment]
            for job, lease in now:
                self._finish(job, lease.token, moment)
            if moment == MOMENTS - 24:
                for _ in range(40):
                    engine.enqueue(NewJob("export.customers", "exports", payload=b'{"format":"csv"}'))
            if moment == MOMENTS - 4:
                engine.pause("webhooks", 3_600_000, "the other side moves to a new host", by="ada")
            self.clock.advance_ms(STEP)
            engine.tick()

    def _some(self, mean: float) -> int:
        return int(mean) + (self._random.random() < mean % 1)

    def _enqueue(self, name: str, moment: int) -> None:
        types, come, _, _ = FLOW[name]
        wave = 1 + 0.4 * (1 if (moment // 30) % 2 else -1) * self._random.random()
        for _ in range(self._some(come * wave)):
            customer = self._random.randrange(1000, 9999)
            payload = f'{{"customer":{customer},"order":"2027-{self._random.randrange(10_000):04}"}}'
            options = Options(tags=("shop",), key=f"customer-{customer}")
            self.engine.enqueue(
                NewJob(self._random.choice(types), name, payload=payload.encode(), options=options)
            )

    def _take(self, name: str, moment: int) -> Iterator[Delivery]:
        worker = f"{name}-{self._random.randrange(1, 4)}"
        request = DequeueRequest((name,), consumer=worker, count=self._some(FLOW[name][2]) or 1)
        taken = self.engine.dequeue(request)
        assert isinstance(taken, list)
        yield from taken

    def _finish(self, job: Job, token: str, moment: int) -> None:
        claim = LeaseClaim(job.id, token, None)
        fails = FLOW[job.queue][3]
        if job.queue == "invoices":  # what is new
            fails = 0.6 if moment > MOMENTS - 60 and job.type == "invoice.print" else 0.0
        if self._random.random() < fails:
            final = self._random.random() < 0.5
            self.engine.fail(claim, ERRORS[job.queue].encode(), not final)
        else:
            self.engine.conclude(claim, b'{"ok":true}')


async def take(page: Page, address: str, path: Path) -> None:
    await page.goto(address, wait_until="domcontentloaded")
    await page.locator("#state", has_text="Live").wait_for()
    print(f"{path.name}: {len(await page.screenshot(path=path)):,} bytes")


async def main(folder: Path) -> None:
    shop = Shop()
    shop.two_hours()
    dead = next(job for job in shop.engine._queue.state.jobs.after(0) if job.status == "dead")
    server = application(Dispatcher(shop.engine)).listen(0, "127.0.0.1")
    [socket] = server._sockets.values()
    port = socket.getsockname()[1]
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, path, dark, width, height in PAGES:
            context = await browser.new_context(
                color_scheme="dark" if dark else "light", viewport={"width": width, "height": height}
            )
            page = await context.new_page()
            await page.clock.set_fixed_time(shop.clock.wall() / 1000)
            await take(page, f"http://127.0.0.1:{port}/{path.format(dead=dead.id)}", folder / f"{name}.png")
            await context.close()
        await browser.close()
    server.stop()
    shop.engine.close()


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "screenshots"
    target.mkdir(exist_ok=True)
    asyncio.run(main(target))
