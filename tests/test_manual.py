"""README.md and docs/ name every setting, error, call, field and event of the program, and no others.

What the program has comes from outside: from its settings and from its OpenAPI document, which
`tests/web/test_openapi.py` compares with the code.
"""

import asyncio
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

import jobqueue
from jobqueue import MemoryEngine, Settings, make_app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FILES = {path.name: path for path in sorted(ROOT.glob("*.md"))} | {
    f"docs/{path.name}": path for path in sorted(DOCS.glob("*.md"))
}
PAGES = {name: path.read_text() for name, path in FILES.items()}
MANUAL = "\n".join(text for name, text in PAGES.items() if name == "README.md" or name.startswith("docs/"))
# The workers that the server hands out read these; run.sh reads JOBQUEUE_COMPILE; Kubernetes injects the others.
NOT_SETTINGS = {"JOBQUEUE_URL", "JOBQUEUE_TOKEN", "JOBQUEUE_DIRECT", "JOBQUEUE_COMPILE", "JOBQUEUE_SERVICE"}


async def _openapi():
    engine = MemoryEngine(Settings(first_id=1))
    server = HTTPServer(make_app(engine))
    [listening] = bind_sockets(0, "127.0.0.1")
    server.add_socket(listening)
    client = AsyncHTTPClient(force_instance=True)
    answer = await client.fetch(f"http://127.0.0.1:{listening.getsockname()[1]}/openapi.json")
    client.close()
    server.stop()
    await server.close_all_connections()
    engine.close()
    return json.loads(answer.body)


with ThreadPoolExecutor(1) as _thread:  # a loop of its own must not become this thread's
    DOCUMENT = _thread.submit(asyncio.run, _openapi()).result()
SCHEMAS = DOCUMENT["components"]["schemas"]
ROUTES = [
    (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods if path != "/"
]


def rows(page, head):
    """Returns the cells of each row, in all tables of the page whose header begins with `head`."""
    tables = re.findall(rf"^\| {re.escape(head)}.*?\n((?:\|.*\n)+)", PAGES[page], re.MULTILINE)
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for table in tables
        for line in table.splitlines()[1:]
    ]


def code_in(text):
    """Returns the words of a page's code blocks and of its text in backticks."""
    code = re.findall(r"^```.*?^```|`(?:[^`\n]|\n(?!\n))+`", text, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"[\w-]+", "\n".join(code)))


def test_every_setting_has_a_row_and_no_other_is_named():
    declared = {f"JOBQUEUE_{name.upper()}" for name in Settings.declared}
    names = [row[0].strip("`") for row in rows("docs/settings.md", "setting | default")]
    assert len(names) == len(set(names))
    assert set(names) == declared
    named = set(re.findall(r"\bJOBQUEUE_[A-Z_]*[A-Z]", MANUAL))
    assert named <= declared | NOT_SETTINGS
    assert named >= declared


def test_every_default_is_the_one_in_force():
    described = 0
    for cell, told, *_ in rows("docs/settings.md", "setting | default"):
        default = Settings.declared[cell.strip("`").removeprefix("JOBQUEUE_").lower()].default
        if default in (None, ""):
            assert told == "–" or len(told.split()) > 1, cell  # none, or one that the program works out
            described += told != "–"
        else:
            assert told.strip("`") == str(default).replace("True", "true").replace("False", "false"), cell
    assert described == 5


def test_every_error_is_in_the_table_with_its_status():
    told = {}
    for status, names, meaning in rows("docs/api.md", "status | code"):
        told.setdefault(status, set()).update(re.findall(r"\w+", names))
        assert meaning, names
    assert told == {
        status: set(content["application/problem+json"]["schema"]["properties"]["code"]["enum"])
        for status, response in DOCUMENT["components"]["responses"].items()
        for content in [response["content"]]
    }
    assert set().union(*told.values()) == set(SCHEMAS["Problem"]["properties"]["code"]["enum"])


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda part: part)
def test_every_call_is_in_the_table_of_the_api(method, path):
    """A row names it in full, or by its last part after another path of the same kind."""
    end = path.rpartition("/")[2]
    named = re.compile(rf"(?:{re.escape(path)}|`/{end}|…/{end})`")
    cells = [row[0] for row in rows("docs/api.md", "call | answers")]
    assert any(named.search(cell) and method in cell for cell in cells)


def test_no_other_call_is_in_the_table_of_the_api():
    paths = {path for _, path in ROUTES}
    for cell, *_ in rows("docs/api.md", "call | answers"):
        for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/\S*)`", cell):
            assert (method, path) in ROUTES
        for end in re.findall(r"`(/\S*)`", cell):
            assert any(path.endswith(end) for path in paths), cell


def names_of(*schemas):
    return {name for schema in schemas for name in SCHEMAS[schema]["properties"]}


@pytest.mark.parametrize(
    ("page", "names"),
    [
        (
            "docs/api.md",
            names_of("JobView", "AttemptView", "Queue", "QueueSettingsView", "PauseView", "RateView", "Totals"),
        ),
        ("docs/api.md", names_of("Problem", "BulkResult", "Results", "Imported", "ErrorShape", "BackoffShape") - {"title"}),
        ("docs/api.md", names_of("JobShape", "ChangeShape", "QueueShape", "ConcludeShape", "DequeueShape")),
        ("docs/api.md", names_of("HeartbeatShape", "ReleaseShape", "FailShape", "PurgeShape", "StreamShape")),
        (
            "docs/shell.md",
            {*SCHEMAS["ReasonView"]["properties"]["code"]["enum"]} | names_of("Explained", "ReasonView") - {"id"},
        ),
        ("docs/streams.md", names_of("Imported") | {"origin"}),
    ],
    ids=["jobs and queues", "other answers", "jobs and queues as sent", "verbs", "why a job waits", "import"],
)  # fmt: skip
def test_every_name_in_a_request_or_an_answer_is_explained(page, names):
    assert names - code_in(PAGES[page]) == set()


def test_every_event_is_explained():
    (parameter,) = [
        parameter
        for parameter in DOCUMENT["paths"]["/events"]["get"]["parameters"]
        if parameter.get("name") == "event"
    ]
    events = set(parameter["schema"]["items"]["enum"])
    assert len(events) > 10
    assert events - code_in(PAGES["docs/streams.md"]) == set()


def test_every_option_is_explained():
    parameters = [
        parameter
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for parameter in operation["parameters"]
    ]
    names = {
        (DOCUMENT["components"]["parameters"][p["$ref"].rpartition("/")[2]] if "$ref" in p else p)["name"]
        for p in parameters
    }
    assert len(names) > 30
    assert names - code_in(PAGES["docs/api.md"]) == set()


def anchors(text):
    """Returns the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", FILES)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (FILES[page].parent / path).resolve() if path else FILES[page]
        assert file.is_file(), target
        if anchor:
            assert anchor in anchors(file.read_text()), target


def test_the_figures_of_the_readme_are_those_of_the_table_and_its_commit():
    section = PAGES["docs/benchmarks.md"].partition("<!-- peers -->")[2].partition("<!-- /peers -->")[0]
    at_64 = section.partition("**64 connections")[2]
    rates = [
        re.search(rf"^\| {name} \| ([\d,]+) ", at_64, re.MULTILINE)[1] for name in ("jobqueue", "beanstalkd")
    ]
    commit = re.search(r"commit ([0-9a-f]+)", section)[1]
    speed = PAGES["README.md"].partition("## Speed")[2].partition("\n## ")[0]
    assert re.findall(r"\d+,\d{3}", speed) == rates
    assert f"commit {commit}" in " ".join(speed.split())


def test_each_heading_of_figures_is_as_the_program_writes_it():
    page = PAGES["docs/benchmarks.md"]
    sections = re.findall(r"^<!-- ([\w-]+) -->\n\n(.*)$", page, re.MULTILINE)
    assert len(sections) > 10
    for name, heading in sections:
        if name != "machine" and heading != f"<!-- /{name} -->":  # not measured yet
            assert re.fullmatch(
                r"\*\d{4}-\d\d-\d\d, (commit [0-9a-f]{7,}(, changed since)?|commit not noted|outside git)"
                rf"(, load average [\d.]+)?: `\./scripts/bench\.sh {name} --write`\*",
                heading,
            ), heading


def test_every_page_is_in_both_indexes():
    for path in DOCS.glob("*.md"):
        if path.name != "README.md":
            assert f"]({path.name})" in PAGES["docs/README.md"]
            assert f"](docs/{path.name}" in PAGES["README.md"]


def test_the_readme_is_short():
    prose = re.sub(r"^```.*?^```|<[^>]*>", "", PAGES["README.md"], flags=re.MULTILINE | re.DOTALL)
    assert len(prose.split()) < 750


def test_the_test_on_the_page_for_embedders_passes(tmp_path):
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGES["docs/embedding.md"], re.MULTILINE | re.DOTALL)
    (tmp_path / "test_embedded.py").write_text(block)
    package = str(Path(jobqueue.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_embedded.py"],
        cwd=tmp_path, env={"PYTHONPATH": package, "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


LAYERS = PAGES["docs/design.md"].partition("## Layers")[2].partition("\n## ")[0]


def test_every_layer_is_in_the_table_of_the_design():
    package = ROOT / "jobqueue"
    known = set(re.findall(r"[\w.]+", LAYERS))
    for path in package.iterdir():
        if (path.is_dir() or path.suffix == ".py") and not path.name.startswith("_") and path.stem != "cli":
            assert path.stem in known, path.name


def test_contributors_find_the_folders_that_the_page_names():
    for folder in re.findall(r"`((?:tests|scripts|deploy|docs)/[\w/.]*)`", PAGES["CONTRIBUTING.md"]):
        assert (ROOT / folder).exists(), folder
