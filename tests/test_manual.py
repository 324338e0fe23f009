"""README.md and docs/ name every setting, error, call, field and event that there is, and none that is not."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from jobqueue import MemoryEngine, Settings
from jobqueue.model import Code
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.routes import ROUTES
from jobqueue.web.streams.events import EVENT_NAMES
from jobqueue.web.writers.problems import codes

ROOT = Path(__file__).parents[1]
PAGES = {page.name: page.read_text() for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
ALL = "\n".join(PAGES.values())
DOCUMENT = json.loads(Dispatcher(MemoryEngine(Settings(first_id=1))).server.document())
# The client's, for the workers that the server hands out.
CLIENTS = {"JOBQUEUE_URL", "JOBQUEUE_TOKEN"}


def rows(page, head):
    """Of the table with that head: the text of each row's cells."""
    table = re.search(rf"^\| {re.escape(head)}.*?\n((?:\|.*\n)+)", PAGES[page], re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()[1:]]


def code_in(text):
    """The words of its examples, and of what stands in backticks."""
    code = re.findall(r"^```.*?^```|`(?:[^`\n]|\n(?!\n))+`", text, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"[\w-]+", "\n".join(code)))


def settings_in(text):
    """`_PORT` stands for JOBQUEUE_PORT, in a line that has a whole name."""
    found = set()
    for line in text.splitlines():
        whole = re.findall(r"\bJOBQUEUE_[A-Z_]*[A-Z]", line)
        found |= {*whole, *("JOBQUEUE" + short for short in re.findall(r"`(_[A-Z_]+)`", line) if whole)}
    return found


def test_every_setting_is_in_a_table_and_none_is_named_that_is_not_there():
    declared = {f"JOBQUEUE_{name.upper()}" for name in Settings.declared}
    cells = [
        row[0]
        for page, head in (("README.md", "setting"), ("security.md", "setting"))
        for row in rows(page, head)
    ]
    assert settings_in("\n".join(cells)) == declared
    assert settings_in(ALL) == declared | CLIENTS | {"JOBQUEUE_COMPILE"}  # that is for `run.sh`


@pytest.mark.parametrize("page", ["README.md", "security.md"])
def test_every_default_is_the_one_that_holds(page):
    for cell, defaults, *_ in rows(page, "setting"):
        names = re.findall(r"`(?:JOBQUEUE)?_([A-Z_]+)`", cell)
        each = defaults.split(", ")
        for name, told in zip(names, each * (len(names) if len(each) == 1 else 1), strict=True):
            default = Settings.declared[name.lower()].default
            if default not in (None, ""):
                assert str(default).lower() == told.strip("`").replace(",", "").lower(), name


def test_every_error_is_in_the_table_with_its_status():
    told = {}
    for status, names, _ in rows("api.md", "status | code"):
        told.setdefault(int(status), set()).update(re.findall(r"\w+", names))
    assert told == {status: set(names) for status, names in codes().items()}


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if route.path != "/"],
    ids=lambda route: f"{route.method} {route.path}",
)
def test_every_call_is_in_the_table_of_the_readme(route):
    """By its path; or, behind another one of the same kind, by how it ends."""
    end = route.path.rpartition("/")[2]
    named = re.compile(rf"(?:{re.escape(route.path)}|`/{end}|…/{end})`")
    cells = [row[0] for row in rows("README.md", "call | answers")]
    assert any(named.search(cell) and route.method in cell for cell in cells)


def names_of(*schemas):
    return {name for schema in schemas for name in DOCUMENT["components"]["schemas"][schema]["properties"]}


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("api.md", names_of("JobView", "AttemptView", "Queue", "QueueSettingsView", "PauseView", "RateView")),
        (
            "api.md",
            names_of("Problem", "BulkResult", "Results", "ErrorShape", "BackoffShape")
            - {"title", "imported", "known"},
        ),
        (
            "shell.md",
            {*get_args(Code)} | names_of("Explained", "ReasonView"),
        ),
        ("streams.md", {*EVENT_NAMES} | names_of("Imported")),
    ],
    ids=["jobs and queues", "other answers", "why a job waits", "events"],
)
def test_every_name_in_an_answer_is_explained(page, names):
    assert names - code_in(PAGES[page]) == set()


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
    assert names - code_in(ALL) == set()
