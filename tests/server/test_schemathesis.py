"""Tests the running program against its own OpenAPI document with schemathesis, which makes up valid and invalid
requests, one by one and along the links. No response may be a 5xx, or have a status, content type, header or
body that the document does not describe.

With TEST_ALL=1 there are some 9,000 requests. A failure names the seed and a curl command that repeat it.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest

from jobqueue.web.routes import ROUTES

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed"
)
only_all = pytest.mark.skipif(os.environ.get("TEST_ALL") != "1", reason="long: set TEST_ALL=1")

ROOT = Path(__file__).parents[2]
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
# Only the links in the document are followed, no inferred ones. Methods that the document does not have are tested
# elsewhere.
CONFIG = """
[generation]
no-shrink = true
database = "none"
[phases.coverage]
unexpected-methods = []
[phases.stateful]
generation = { mode = "positive" }
inference = { algorithms = [] }
"""


class Program(NamedTuple):
    url: str
    document: Path


@pytest.fixture
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    """The program on a free port. It must log nothing but its first and last line."""
    own = {
        "HTTP": request.param,
        "HOST": "127.0.0.1",
        "PORT": "0",
        "WAIT_MAX": "100ms",
        "LOG_LEVEL": "warning",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")}
    environment |= {f"JOBQUEUE_{name}": value for name, value in own.items()}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "jobqueue", "serve"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            url = re.search(r"http://[\d.:]+", process.stderr.readline())[0]
            with urlopen(f"{url}/openapi.json") as answer:
                document = json.load(answer)
            path = tmp_path / "openapi.json"
            path.write_text(json.dumps(strict(document)))
            yield Program(url, path)
        finally:
            process.terminate()
            said = process.communicate(timeout=10)[1].splitlines()
    said = [line for line in said if "the event loop was blocked" not in line]  # on a machine that is busy
    assert (process.returncode, len(said), said[-1].startswith("stopped")) == (0, 1, True), said


def strict(document: dict[str, Any]) -> dict[str, Any]:
    """The document with stricter schemas: responses have no members but those named. So raw dequeues, whose responses
    are arbitrary, are left out, and durations are short enough for a test."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            content = operation["responses"].get("200", {}).get("content", {})
            if content.pop("*/*", None) is not None:
                content["application/json"]["schema"]["anyOf"].pop()
                if "dequeue" in path:
                    operation["parameters"] = [
                        one for one in operation["parameters"] if one.get("name") != "raw"
                    ]
    document["components"]["schemas"]["DequeueShape"]["properties"].pop("raw")
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        if schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
    for name in ("Duration", "PositiveDuration", "LeaseFor", "Wait", "Age"):
        for schema in (schemas[name], schemas[f"{name}InQuery"]):
            schema["pattern"] = "^[1-9][0-9]?ms$" if name == "Wait" else "^([1-9][0-9]?(s|m)?|1h30m)$"
    return document


# Calls that take what another one does, with the same reader: its edges are theirs.
TWINS = ("PUT /import", "POST /queues/{name}/enqueue", "POST /queues/{name}/dequeue")


def without_twins(program: Program) -> Program:
    """Leaves the calls of `TWINS` out of the document, which have a quarter of all edges."""
    document = json.loads(program.document.read_text())
    for twin in TWINS:
        method, path = twin.split()
        del document["paths"][path][method.lower()]
    program.document.write_text(json.dumps(document))
    return program


def run(program: Program, phase: str, examples: int, seed: int = 1) -> str:
    """Runs schemathesis, which must find nothing. Returns its output."""
    config = program.document.with_name("schemathesis.toml")
    config.write_text(CONFIG)
    hooks = {"SCHEMATHESIS_HOOKS": str(Path(__file__).with_name("schemathesis_hooks.py"))}
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run", program.document,
         "--url", program.url, "--checks", CHECKS, "--phases", phase, "--max-examples", str(examples),
         "--seed", str(seed), "--continue-on-failure", "--no-color"],
        cwd=program.document.parent, env=os.environ | hooks, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def number(pattern: str, said: str) -> int:
    return int(re.search(pattern, said)[1].replace(",", ""))


@pytest.mark.parametrize("program", ["fast"], indirect=True)
def test_a_few_made_up_requests_are_answered_as_the_document_says(program: Program):
    assert number(r"Tested: (\d+)", run(program, "fuzzing", 1)) == len(ROUTES)


@only_all
@pytest.mark.parametrize("program", ["fast"], indirect=True)
def test_values_at_the_edges_of_the_document_are_answered_as_it_says(program: Program):
    assert number(r"([\d,]+) generated", run(without_twins(program), "coverage", 1)) > 5000


@only_all
@pytest.mark.parametrize("program", ["tornado"], indirect=True)
def test_made_up_requests_are_answered_as_the_document_says(program: Program):
    assert number(r"([\d,]+) generated", run(program, "fuzzing", 6)) > 100


@only_all
@pytest.mark.parametrize("program", ["fast"], indirect=True)
def test_calls_along_the_links_are_answered_as_the_document_says(program: Program):
    """Responses depend on earlier requests, and a run may end early; so there are several."""
    runs = [run(program, "stateful", 30, seed) for seed in (1, 2)]
    assert sum(number(r"(\d+) covered", said) for said in runs) > 0, "no link led anywhere"
