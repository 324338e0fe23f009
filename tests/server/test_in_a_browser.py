"""What a person sees in Chromium. Skipped where playwright or chromium is not installed."""

import pytest
from running import Program

pytestmark = pytest.mark.browser
TOKEN = "one-token-for-everything"


@pytest.mark.parametrize("front", ["fast", "tornado"])
def test_a_person_logs_in_with_the_access_token_as_password(chromium, front):
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_ACCESS_TOKEN=TOKEN) as program:
        here = f"http://127.0.0.1:{program.port}"
        made = program.call(
            "POST", "/queues/mail/enqueue", {"type": "letter"}, Authorization=f"Bearer {TOKEN}"
        )
        person = chromium.new_context(http_credentials={"username": "", "password": TOKEN})
        page = person.new_page()
        assert page.goto(f"{here}/").status == 200
        page.get_by_role("table").get_by_role("link", name="mail", exact=True).click()
        page.get_by_role("link", name=str(made[1]["id"]), exact=True).click()
        assert page.url == f"{here}/jobs/{made[1]['id']}"
        assert "letter" in page.content()
        stranger = chromium.new_context(http_credentials={"username": "", "password": "a wrong one"})
        assert stranger.new_page().goto(f"{here}/").status == 401
        person.close()
        stranger.close()
        program.stop()


def test_links_lead_on_behind_a_proxy_that_publishes_the_server_below_a_path(chromium):
    """The browser is told where the server is by nothing but the address of the first page."""
    with Program() as program:
        here = f"http://127.0.0.1:{program.port}"
        program.call("POST", "/queues/mail/enqueue", {"type": "letter"})
        page = chromium.new_page()
        page.route(
            "**/below/**",
            lambda route: route.fulfill(response=route.fetch(url=route.request.url.replace("/below/", "/"))),
        )
        # Such a proxy fetches whole answers, and a stream has no end.
        page.route("**/below/live*", lambda route: route.abort())
        page.goto(f"{here}/below/")
        page.get_by_role("table").get_by_role("link", name="mail", exact=True).click()
        assert page.url == f"{here}/below/queues/mail"
        page.get_by_role("link", name="queues", exact=True).click()
        assert page.url == f"{here}/below/"
        page.unroute_all(behavior="ignoreErrors")  # what is still being fetched
        page.close()
        program.stop()


@pytest.mark.parametrize("front", ["fast", "tornado"])
def test_a_page_of_another_origin_enqueues_nothing(chromium, front):
    with Program(JOBQUEUE_HTTP=front) as program:
        page = chromium.new_page()
        page.route(
            "http://other.example/**", lambda route: route.fulfill(body="<p>here", content_type="text/html")
        )
        page.goto("http://other.example/")
        page.evaluate(
            "url => fetch(url, {method: 'POST', mode: 'no-cors', body: '{\"type\":\"x\"}'}).catch(() => null)",
            f"http://127.0.0.1:{program.port}/jobs/enqueue",
        )
        assert program.call("GET", "/stats")[1]["jobs"]["queued"] == 0
        page.close()
        program.stop()
