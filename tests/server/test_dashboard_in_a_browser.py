"""The dashboard in Chromium. Skipped where playwright or chromium is not installed."""

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from running import Program, until

pytestmark = pytest.mark.browser
ALL = os.environ.get("TEST_ALL") == "1"
thorough = pytest.mark.skipif(not ALL, reason="many jobs, or two servers: with TEST_ALL=1")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"' \u202eright to left\u202c 🎺"
PAGES = (
    "", "queues/mail", "jobs?order=desc", "jobs?queue=mail&status=dead", "jobs/1", "jobs/2",
    "jobs/groups?by=queue,type,error", "consumers", "schedules", "schedules/nightly", "stats",
    "tokens", "audit", "queues/mail?for=6h", "queues/mail?for=1h&until=2030-01-01T00:00:00Z", "queues/mail/series", "queues/" + "n" * 128, "events", "cluster", "login",
)  # fmt: skip
# One page of each kind. In the first ones all colours are used.
KINDS = (
    "", "queues/mail", "jobs?queue=mail", "jobs/1", "jobs/groups?by=queue,type,error", "consumers",
    "schedules/nightly", "audit", "stats", "tokens", "events", "login", "jobs/404",
)  # fmt: skip


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Program(JOBQUEUE_FIRST_ID="1") as program:
        fill(program)
        yield program
        program.stop()


def fill(program: Program) -> None:
    """Makes jobs with texts that no page may take for its own: 1 is dead, 2 is in progress, 3 waits."""
    long, wide = "w" * 256, "n" * 128
    for job in (
        {
            "type": HOSTILE,
            "tags": [HOSTILE[:64]],
            "key": HOSTILE,
            "payload": {HOSTILE: HOSTILE},
            "max_attempts": 1,
        },
        {"type": long, "key": long, "payload": "y" * ((1 << 20) - 2)},
        {"type": "plain"},
    ):
        assert program.call("POST", "/queues/mail/enqueue", job)[0] == 201
    for consumer in (HOSTILE, wide):
        assert program.call("POST", "/queues/mail/dequeue", {"consumer": consumer})[0] == 200
    error = {"type": HOSTILE, "message": HOSTILE}
    lease = program.call("GET", "/jobs/1")[1]
    assert lease["status"] == "in_progress"
    assert program.call("POST", "/jobs/1/fail", {"consumer": HOSTILE, "error": error})[0] == 200
    program.call("POST", f"/queues/{wide}/pause", {"reason": HOSTILE})
    program.call("PUT", "/schedules/nightly", {"cron": "@daily", "job": {"type": HOSTILE}})


def opened(chromium: Any, **options: Any) -> tuple[Any, list[str]]:
    """Returns a page in a context of its own, and what the console of the browser complains of."""
    page = chromium.new_context(**options).new_page()
    complaints: list[str] = []
    page.on(
        "console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
    page.add_init_script(
        "document.addEventListener('securitypolicyviolation', e => console.error(`CSP: ${e.violatedDirective}`))"
    )
    return page, complaints


@pytest.mark.parametrize(("scheme", "width"), [("dark", 320), pytest.param("light", 1200, marks=thorough)])
def test_no_page_complains_or_scrolls_sideways(chromium, program, scheme, width):
    page, complaints = opened(
        chromium, color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce"
    )
    for path in PAGES:
        assert (
            page.goto(f"http://127.0.0.1:{program.port}/{path}", wait_until="domcontentloaded").status == 200
        )
        assert not complaints, (path, complaints)
        if width == 320:
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(16, 20, 24)" if scheme == "dark" else "rgb(255, 255, 255)")
    page.context.close()


@thorough
def test_axe_finds_nothing_on_any_kind_of_page(chromium, program):
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    source = (Path(axe.__file__).parent / "axe.min.js").read_text("utf-8")
    page, _ = opened(chromium, bypass_csp=True)
    colours = "axe.run({runOnly: ['color-contrast'], resultTypes: ['violations']})"
    for path in KINDS:
        page.emulate_media(color_scheme="dark")
        page.goto(f"http://127.0.0.1:{program.port}/{path}", wait_until="domcontentloaded")
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        page.evaluate(source)
        found = page.evaluate("axe.run({resultTypes: ['violations']})")
        assert len(found["passes"]) > 10
        wrong = found["violations"]
        if path in KINDS[:4]:
            page.emulate_media(color_scheme="light")
            wrong += page.evaluate(colours)["violations"]
        assert not [(one["id"], one["nodes"][0]["html"][:200]) for one in wrong], path
    page.context.close()


@thorough
def test_the_page_of_events_shows_them_as_they_happen(chromium, program):
    page, complaints = opened(chromium)
    page.goto(f"http://127.0.0.1:{program.port}/events?queue=told", wait_until="domcontentloaded")
    page.locator("#state", has_text="Live").wait_for()
    id = program.call("POST", "/queues/told/enqueue", {"type": HOSTILE})[1]["id"]
    program.call("POST", "/queues/other/enqueue", {"type": "x"})
    program.call("POST", "/queues/told/dequeue", {"consumer": "ann"})
    rows = page.locator("#events tbody tr")
    rows.filter(has_text="dequeued").wait_for()
    assert rows.count() == 2
    assert rows.first.get_by_role("cell").all_inner_texts()[1:4] == ["dequeued", str(id), "told"]
    assert HOSTILE[:20] in rows.last.inner_text()
    page.get_by_role("button", name="Pause").click()
    program.call("POST", "/queues/told/enqueue", {"type": "later"})
    page.get_by_role("button", name="Go on").click()
    rows.filter(has_text="later").wait_for()
    assert not complaints
    page.context.close()


@thorough
def test_all_jobs_of_a_page_are_selected_at_once(chromium, program):
    ids = [program.call("POST", "/queues/boxes/enqueue", {"type": "x"})[1]["id"] for _ in range(3)]
    page, complaints = opened(chromium)
    page.goto(
        f"http://127.0.0.1:{program.port}/jobs?queue=boxes&status=queued", wait_until="domcontentloaded"
    )
    page.get_by_label(f"Select job {ids[0]}").check()
    page.get_by_text("1 selected:").wait_for()
    page.get_by_label("Select all jobs of this page").check()
    page.get_by_text("3 selected:").wait_for()
    page.locator("form.selected").get_by_role("button", name="Cancel").click()
    page.get_by_text("Done.").wait_for()
    assert program.call("GET", "/queues/boxes")[1]["jobs"]["cancelled"] == 3
    assert not complaints
    page.context.close()


def tab_to(page: Any, name: str) -> None:
    """Moves the focus by the keyboard to a button, link or field whose name begins so."""
    said = "e => e.getAttribute('aria-label') || (e.labels?.[0]?.firstChild || e).textContent"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(f"({said})(document.activeElement)").startswith(name):
            return
    raise AssertionError(f"the keyboard does not reach {name!r}")


@thorough
def test_a_failing_group_is_redriven_by_the_keyboard_alone(chromium):
    with Program(JOBQUEUE_FIRST_ID="1") as program:
        for _ in range(2):
            program.call("POST", "/queues/mail/enqueue", {"type": "letter", "max_attempts": 1})
            job = program.call("POST", "/queues/mail/dequeue")[1]
            program.call("POST", f"/jobs/{job['id']}/fail", {"lease": job["lease"], "error": "no host"})
        page, complaints = opened(chromium)
        page.goto(f"http://127.0.0.1:{program.port}/", wait_until="domcontentloaded")
        for name in ("2 dead jobs", "Redrive letter no host in mail", "Redrive all 2 that match"):
            tab_to(page, name)
            with page.expect_navigation(wait_until="domcontentloaded"):
                page.keyboard.press("Enter")
        assert "Done: 2 of 2 jobs." in page.locator("main").inner_text()
        assert program.call("GET", "/queues/mail")[1]["jobs"]["queued"] == 2
        assert not complaints
        page.context.close()
        program.stop()


def submit_by_keyboard(page: Any, summary: str, field: str, text: str, at: str = "") -> None:
    """Unfolds a form, types `text` over what a field has, and submits the form there, or at the button `at`."""
    tab_to(page, summary)
    page.keyboard.press("Enter")
    tab_to(page, field)  # which selects its text
    page.keyboard.type(text) if text else page.keyboard.press("Delete")
    if at:
        tab_to(page, at)
    with page.expect_navigation(wait_until="domcontentloaded"):
        page.keyboard.press("Enter")


@thorough
def test_settings_of_a_queue_are_changed_and_removed_by_the_keyboard_alone(chromium, program):
    page, complaints = opened(chromium)
    here = f"http://127.0.0.1:{program.port}/queues/typed"
    page.goto(here, wait_until="domcontentloaded")
    submit_by_keyboard(page, "Settings", "max jobs", "7")
    assert page.get_by_text("Done.").is_visible()
    assert program.call("GET", "/queues/typed")[1]["settings"] == {"max_jobs": 7}
    tab_to(page, "Settings")
    page.keyboard.press("Enter")
    tab_to(page, "keys take turns")
    page.keyboard.press("ArrowDown")
    tab_to(page, "Change settings")
    with page.expect_navigation(wait_until="domcontentloaded"):
        page.keyboard.press("Enter")
    assert program.call("GET", "/queues/typed")[1]["settings"] == {"max_jobs": 7, "fair_keys": True}
    submit_by_keyboard(page, "Settings", "max jobs", "", "Change settings")
    assert page.get_by_text("Done.").is_visible()
    assert program.call("GET", "/queues/typed")[1]["settings"] == {"fair_keys": True}
    page.goto(f"{here}?for=1h", wait_until="domcontentloaded")
    tab_to(page, "Settings")
    page.keyboard.press("Enter")
    tab_to(page, "lease for")
    page.keyboard.type("5m")
    program.call("PATCH", "/queues/typed", {"max_jobs": 5})
    with page.expect_navigation(wait_until="domcontentloaded"):
        page.keyboard.press("Enter")
    assert page.get_by_role("heading", name="changed meanwhile").is_visible()
    tab_to(page, "Back")
    with page.expect_navigation(wait_until="domcontentloaded"):
        page.keyboard.press("Enter")
    assert page.url == f"{here}?for=1h"
    assert program.call("GET", "/queues/typed")[1]["settings"] == {"fair_keys": True, "max_jobs": 5}
    assert [said for said in complaints if "412" not in said] == []
    page.context.close()


@thorough
def test_a_schedule_is_changed_by_the_keyboard_alone(chromium, program):
    program.call("PUT", "/schedules/typed", {"cron": "30 2 * * *", "job": {"type": "x", "priority": 3}})
    page, complaints = opened(chromium)
    page.goto(f"http://127.0.0.1:{program.port}/schedules/typed", wait_until="domcontentloaded")
    submit_by_keyboard(page, "Change", "cron", "15 3 * * *")
    assert page.get_by_text("Done.").is_visible()
    assert page.get_by_text("At 03:15 every day (UTC): x").is_visible()
    submit_by_keyboard(page, "Change", "priority", "", "Change the schedule")
    assert program.call("GET", "/schedules/typed")[1]["job"]["priority"] == 0
    assert not complaints
    page.context.close()


def test_a_schedule_is_changed_without_scripts(chromium, program):
    program.call("PUT", "/schedules/plain", {"cron": "@daily", "job": {"type": "x", "payload": {"a": 1}}})
    page, _ = opened(chromium, java_script_enabled=False, viewport={"width": 320, "height": 800})
    here = f"http://127.0.0.1:{program.port}/schedules/plain"
    for every, payload, expected in (("15m", '{"b":\n2}', {"b": 2}), ("1h", "", None)):
        page.goto(here)
        page.locator("summary", has_text="Change").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        page.get_by_label("cron", exact=True).fill("")
        page.get_by_label("or every").fill(every)
        page.get_by_label("missed instants").select_option("skip")
        page.get_by_label("payload (JSON)").fill(payload)
        page.get_by_role("button", name="Change the schedule").click()
        assert page.url == f"{here}#done", page.inner_text("main")
        known = program.call("GET", "/schedules/plain")[1]
        assert (known["every"], known["misfire"]) == (900 if every == "15m" else 3600, "skip")
        assert known["job"]["payload"] == expected
    page.goto(here)
    page.locator("summary", has_text="Change").click()
    program.call("PUT", "/schedules/plain", {"every": "2h", "job": {"type": "x"}})
    page.get_by_label("queue", exact=True).fill("mail")
    page.get_by_role("button", name="Change the schedule").click()
    assert page.get_by_role("heading", name="changed meanwhile").is_visible()
    assert program.call("GET", "/schedules/plain")[1]["job"]["queue"] == "default"
    page.context.close()


def test_a_page_follows_what_happens(chromium, program):
    page, complaints = opened(chromium)
    page.goto(f"http://127.0.0.1:{program.port}/queues/lively", wait_until="domcontentloaded")
    page.locator("#state", has_text="Live").wait_for()
    id = program.call("POST", "/queues/lively/enqueue", {"type": "x"})[1]["id"]
    page.locator("#jobs").get_by_role("link", name=str(id), exact=True).wait_for(timeout=5000)
    assert page.locator("#jobs time").first.inner_text() in ("now", "1 second ago", "2 seconds ago")
    page.get_by_text("Settings", exact=True).click()  # what is chosen and not yet sent stays
    page.locator('[name="fair_keys"]').select_option("true")
    page.get_by_role("heading").first.click()
    id = program.call("POST", "/queues/lively/enqueue", {"type": "x"})[1]["id"]
    page.locator("#jobs").get_by_role("link", name=str(id), exact=True).wait_for(timeout=5000)
    assert page.locator('[name="fair_keys"]').input_value() == "true"
    page.goto(f"http://127.0.0.1:{program.port}/schedules/nightly", wait_until="domcontentloaded")
    page.locator("#state", has_text="Live").wait_for()
    made = program.call("POST", "/schedules/nightly/run")[1]["id"]
    page.locator("#history").get_by_role("link", name=str(made), exact=True).wait_for(timeout=5000)
    assert not complaints
    page.context.close()


def test_a_queue_is_limited_and_not_limited_any_more_without_scripts(chromium, program):
    page, _ = opened(chromium, java_script_enabled=False)
    here = f"http://127.0.0.1:{program.port}/queues/slow?for=6h"
    limits = {"max_jobs": "7", "rate.count": "100", "rate.per": "1m", "key_limits.ordered": "true"}
    for given in (limits, dict.fromkeys(limits, "")):
        page.goto(here)
        page.get_by_text("Settings", exact=True).click()
        for name, value in given.items():
            field = page.locator(f'.actions details [name="{name}"]')
            field.select_option(value) if name.endswith("ordered") else field.fill(value)
        page.get_by_role("button", name="Change settings").click()
        assert page.url == f"{here}#done", page.inner_text("main")
        kept = program.call("GET", "/queues/slow")[1]["settings"]
        if given is limits:
            assert kept == {
                "max_jobs": 7,
                "rate": {"count": 100, "per": 60, "burst": 10},
                "key_limits": {"ordered": True},
            }
    assert kept == {}
    page.goto(here)
    page.get_by_text("Settings", exact=True).click()
    program.call("PATCH", "/queues/slow", {"max_jobs": 5})
    page.get_by_label("max jobs", exact=True).fill("9")
    page.get_by_role("button", name="Change settings").click()
    assert page.get_by_role("heading", name="changed meanwhile").is_visible()
    assert program.call("GET", "/queues/slow")[1]["settings"] == {"max_jobs": 5}
    page.context.close()


@thorough
def test_forms_work_without_scripts(chromium, program):
    page, _ = opened(chromium, java_script_enabled=False)
    here = f"http://127.0.0.1:{program.port}/queues/quiet"
    page.goto(here)
    page.locator("summary", has_text="Pause").click()
    page.get_by_label("reason").fill("tea")
    page.locator("form button", has_text="Pause").click()
    assert page.url == f"{here}#done"
    assert page.get_by_text("Done.").is_visible()
    assert program.call("GET", "/queues/quiet")[1]["pause"]["reason"] == "tea"
    id = program.call("POST", "/queues/quiet/enqueue", {"type": "x"})[1]["id"]
    page.goto(f"http://127.0.0.1:{program.port}/jobs?queue=quiet")
    page.get_by_label(f"Select job {id}").check()
    page.locator("form.selected").get_by_role("button", name="Cancel").click()
    assert page.get_by_text("Done.").is_visible()
    assert program.call("GET", f"/jobs/{id}")[1]["status"] == "cancelled"
    page.context.close()


@thorough
def test_a_person_logs_in_and_sees_no_action_that_the_token_may_not_do(chromium, tmp_path):
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[reader]\ndigest = "{sha256(b"reader-token").hexdigest()}"\nrights = ["read"]\n')
    with Program(JOBQUEUE_TOKENS_FILE=str(tokens)) as program:
        here = f"http://127.0.0.1:{program.port}"
        page, complaints = opened(chromium)
        page.goto(f"{here}/login")
        page.get_by_label("access token").fill("reader-token")
        page.get_by_role("button", name="Log in").click()
        assert page.url == f"{here}/"
        for path in ("queues/mail", "jobs?queue=mail", "jobs/groups?by=queue,type,error"):
            page.goto(f"{here}/{path}", wait_until="domcontentloaded")
            assert page.locator("form[method=post]").count() == 1  # to log out
        assert not complaints
        status = page.evaluate("fetch('../form/queues/mail/pause', {method: 'POST'}).then(a => a.status)")
        assert status == 403
        page.get_by_role("button", name="Log out reader").click()
        assert page.url == f"{here}/login"
        page.context.close()
        program.stop()


@thorough
def test_a_page_connects_again_to_a_server_that_was_started_again(chromium):
    with Program() as program:
        port = program.port
        page, _ = opened(chromium)
        page.goto(f"http://127.0.0.1:{port}/queues/mail", wait_until="domcontentloaded")
        page.locator("#state", has_text="Live").wait_for()
        program.stop()
        page.locator("#state", has_text="Not connected").wait_for()
    with Program(JOBQUEUE_PORT=str(port)) as program:
        page.locator("#state", has_text="Live").wait_for(timeout=20_000)
        id = program.call("POST", "/queues/mail/enqueue", {"type": "x"})[1]["id"]
        page.locator("#jobs").get_by_role("link", name=str(id), exact=True).wait_for(timeout=5000)
        page.context.close()
        program.stop()


@thorough
def test_many_dead_jobs_are_shown_and_redriven_in_three_clicks(chromium):
    with Program() as program:
        batch = [{"type": "letter", "expires_in": 0.001} for _ in range(1000)]
        for _ in range(20):
            assert program.call("POST", "/queues/mail/enqueue", batch)[0] == 201
        until(lambda: program.call("GET", "/queues/mail")[1]["jobs"]["dead"] == 20_000, 60)
        page, complaints = opened(chromium)
        page.goto(f"http://127.0.0.1:{program.port}/", wait_until="domcontentloaded")
        page.get_by_role("link", name="20,000 dead jobs").click()
        page.get_by_role("button", name="Redrive letter").click()
        page.get_by_role("button", name="Redrive all 20,000 that match").click()
        page.get_by_text("Done: 20,000 of 20,000 jobs.").wait_for(timeout=20_000)
        assert not complaints
        page.context.close()
        program.stop()
