"""Imports run one way only. A folder of the package, or a module at its top, is a layer; `ARROWS` says which
layers a layer may import. docs/design.md says why.
"""

import ast
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import jobqueue

PACKAGE = Path(jobqueue.__file__).parent

ARROWS = {
    "advertised": set(),
    "errors": set(),
    "version": set(),
    "clock": set(),
    "histogram": set(),
    "steps": set(),
    "standard_streams": set(),
    "shards": {"clock"},
    "units": {"errors"},
    "native": set(),
    "job_parts": {"steps"},
    "job": {"job_parts", "native", "steps"},
    "job_rows": {"job", "job_parts", "steps"},
    "model": {"errors", "histogram", "job", "job_parts", "steps"},
    "settings": {"advertised", "errors", "shards", "units"},
    "core": {"errors", "histogram", "model", "steps"},
    "storage": {
        "clock",
        "core",
        "errors",
        "histogram",
        "job",
        "job_rows",
        "model",
        "settings",
        "shards",
        "steps",
    },
    "engine": {
        "clock",
        "core",
        "errors",
        "histogram",
        "model",
        "settings",
        "shards",
        "steps",
        "storage",
        "units",
    },
    "cluster": {
        "clock",
        "engine",
        "errors",
        "histogram",
        "job",
        "job_rows",
        "model",
        "settings",
        "shards",
        "steps",
        "storage",
    },
    "client": {"advertised", "errors", "shards", "units", "version"},
    "jobs": {"client", "errors"},
    "worker": {"client", "errors", "jobs"},
    "testing": {"client", "engine", "errors", "jobs", "model", "settings", "steps", "units", "web", "worker"},
    "django": {"client", "errors", "jobs", "worker"},
    "taskiq": {"client", "errors", "worker"},
    "otel": {"jobs", "version"},
    "sentry": {"jobs"},
    "web": {
        "advertised",
        "engine",
        "errors",
        "histogram",
        "job",
        "model",
        "settings",
        "steps",
        "units",
        "version",
    },
    "server": {
        "web",
        "cluster",
        "engine",
        "errors",
        "histogram",
        "model",
        "settings",
        "standard_streams",
        "storage",
        "units",
        "version",
    },
}
ANYTHING = {"__init__", "__main__", "cli"}

# Of a layer, only this module may be imported; but by these modules (those that make an engine).
DOORS = {("web", "engine"): "jobqueue.engine.api"}
DOOR_KEEPERS = {("jobqueue.web.tornado_app", "jobqueue.engine.local")}

# What a layer takes from outside the package: nothing but the standard library, or these.
OUTSIDE = {
    "advertised": set(),
    "errors": set(),
    "version": set(),
    "clock": set(),
    "histogram": set(),
    "shards": set(),
    "standard_streams": set(),
    "steps": set(),
    "units": set(),
    "native": {"mypy_extensions"},
    "job_parts": {"msgspec"},
    "job": set(),
    "job_rows": {"msgspec"},
    "model": {"msgspec"},
    "settings": set(),
    "core": {"msgspec"},
    "storage": {"msgspec"},
    "engine": {"cronsim", "msgspec", "tornado"},
    "cluster": {"greenlet", "msgspec"},
    "testing": {"pytest"},
    "client": {"httptools", "msgspec"},
    "jobs": {"msgspec"},
    "worker": {"msgspec", "uvloop"},
    "taskiq": {"msgspec", "taskiq"},
    "otel": {"opentelemetry"},
    "sentry": {"sentry_sdk"},
    "django": {"asgiref", "django", "django_tasks", "msgspec"},
}
# No clock, no randomness, no I/O, no asyncio.
IMPURE = {
    "asyncio", "concurrent", "datetime", "io", "json", "logging", "multiprocessing", "os", "pathlib", "queue",
    "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess",
    "sys", "tempfile", "threading", "time", "uuid", "zoneinfo",
}  # fmt: skip


class Import(NamedTuple):
    """`module` imports `target`, the dotted name of a module."""

    module: str
    target: str


def module_name(path, package=PACKAGE):
    """The dotted name of the module in `path`; a package's own is its `__init__`."""
    return ".".join(["jobqueue", *path.relative_to(package).with_suffix("").parts])


def imports_of(module, text, package=PACKAGE):
    """Every import in `text`, the source of `module`: wherever it stands, relative ones resolved."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            source = ".".join(base + ([node.module] if node.module else []))
            for alias in node.names:
                # `from jobqueue.engine import api` imports a module, `from jobqueue.errors import X` a name.
                inside = f"{source}.{alias.name}"
                path = package.joinpath(*inside.split(".")[1:])
                yield Import(module, inside if path.is_dir() or path.with_suffix(".py").is_file() else source)


def wrong(found):
    """What is wrong with an import; None: nothing."""
    layer = found.module.split(".")[1]
    if layer in ANYTHING:
        return None
    if layer not in ARROWS:
        return f"{found.module}: the layer {layer} is not listed in {Path(__file__).name}"
    root, _, rest = found.target.partition(".")
    if root != "jobqueue":
        return _wrong_outside(found, layer, root)
    target = rest.partition(".")[0] or "__init__"
    if target == layer:
        return None
    if target not in ARROWS[layer]:
        return f"{found.module} imports {found.target}: {layer} may not import {target}"
    door = DOORS.get((layer, target), found.target)
    if found.target == door or (found.module, found.target) in DOOR_KEEPERS:
        return None
    return f"{found.module} imports {found.target}: {layer} may import {door} only"


def _wrong_outside(found, layer, root):
    if layer == "core" and root in IMPURE:
        return f"{found.module} imports {found.target}: the core has no clock, no randomness and no I/O"
    if root in sys.stdlib_module_names or root in OUTSIDE.get(layer, {root}):
        return None
    return f"{found.module} imports {found.target}: {layer} takes nothing like it from outside"


def complaints(module, text):
    return [complaint for found in imports_of(module, text) if (complaint := wrong(found))]


def test_every_import_of_the_package_goes_along_an_arrow():
    paths = sorted(PACKAGE.rglob("*.py"))
    assert len(paths) > 20
    found = [wrong for path in paths for wrong in complaints(module_name(path), path.read_text())]
    assert not found, "\n".join(found)


def test_every_layer_of_the_package_is_listed():
    layers = {module_name(path).split(".")[1] for path in PACKAGE.rglob("*.py")}
    assert layers <= ARROWS.keys() | ANYTHING


def test_the_arrows_have_no_circle():
    above = dict(ARROWS)
    while above:
        lowest = {layer for layer, below in above.items() if not below & above.keys()}
        assert lowest, f"a circle among {sorted(above)}"
        above = {layer: below for layer, below in above.items() if layer not in lowest}


# Inside these layers a module imports only from its own step and from those before it. Of the longest name that
# fits a module its step counts.
ORDERS = {
    "jobqueue.web": [
        {"http", "request_metrics", "futures", "schema", "bytes_in_flight"},
        {"access", "server_info"},
        {"readers", "writers"},
        {"streams.flow", "streams.event_log"},
        {"streams.subscription"},
        {"streams.events"},
        {"context"},
        {"operations", "streams"},
        {"routes"},
        {"openapi", "openapi_schemas"},
        {"sqs.errors", "sqs.shapes"},
        {"sqs.json_protocol", "sqs.message_attributes", "sqs.names", "sqs.query_protocol", "sqs.signatures"},
        {"sqs.queue_attributes"},
        {"sqs.batches", "sqs.move_tasks"},
        {"sqs.call"},
        {"sqs.queues", "sqs.receipts", "sqs.send"},
        {"sqs.moves", "sqs.receive"},
        {"sqs.actions"},
        {"sqs.routes"},
        {"dashboard.files", "dashboard.finding", "dashboard.queue_settings", "dashboard.schedule_plan"},
        {"dashboard.form_calls", "dashboard.live", "dashboard.login"},
        {"dashboard.selected"},
        {"dashboard.routes"},
        {"dispatch"},
        {"tornado_app"},
    ],
    "jobqueue.server.http1": [
        {"head_cache"},
        {"front_state", "read_ahead"},
        {"request_parser", "response_writer"},
        {"transfers"},
        {"connection"},
        {"front"},
    ],
    "jobqueue.engine": [
        {
            "api",
            "calendar",
            "catch_up",
            "consumers",
            "drop_log",
            "error_kinds",
            "groups",
            "memory_limit",
            "series",
            "ticker",
            "tokens",
            "versions",
            "wait_future",
        },
        {"bulk", "commit", "driver", "scheduler"},
        {"local"},
        {"opening"},
    ],
    "jobqueue.client": [
        {"address", "http", "numbers", "plain_parser"},
        {"codec", "errors"},
        {"call", "failover", "models", "socket_transport"},
        {"asyncio_transport", "encoding", "owners", "streams"},
        {"direct"},
        {"verbs"},
        {"job_verbs", "queue_verbs", "schedule_verbs", "server_verbs"},
        {"client"},
    ],
    "jobqueue.jobs": [
        {"context", "options", "outcomes"},
        {"shared", "signature"},
        {"handle"},
        {"declared"},
        {"schedules"},
        {"registry"},
    ],
    "jobqueue.worker": [
        {"running_job", "source_files"},
        {"hooks", "process_messages", "reporter"},
        {"process_main", "tasks", "threads"},
        {"link", "processes"},
        {"worker"},
        {"cli"},
    ],
    "jobqueue.testing": [
        {"clock", "immediate_loop", "requirements", "replaced_clients"},
        {"in_process_server", "runner", "server"},
        {"transports"},
        {"kit"},
        {"pytest_plugin"},
    ],
    "jobqueue.django": [
        {"apps", "tasks_api"},
        {"running"},
        {"registry", "results"},
        {"backend"},
        {"management"},
    ],
    "jobqueue.storage": [
        {"records", "salvage"},
        {"row_builder", "store"},
        {"data_dir", "loader", "postgres_schema", "sqlite", "writer"},
        {"postgres_session"},
        {"disk_watch", "maintenance", "postgres", "postgres_setup", "postgres_watch"},
        {"migration", "shared_writer"},
    ],
}


def step_of(module):
    """Returns the layer with an order that `module` belongs to, and its step there; None: it has none."""
    for layer, steps in ORDERS.items():
        name = module.removeprefix(layer + ".")
        if name != module and not name.startswith("static"):
            fits = [(len(room), step) for step, rooms in enumerate(steps) for room in rooms
                    if name == room or name.startswith(room + ".")]  # fmt: skip
            if name.partition(".")[0] != "__init__":
                assert fits, f"{module} has no place in the order of {layer}"
                return layer, max(fits)[1]
    return None


def against_the_order(found):
    """Whether an import goes to a later step of the same layer."""
    here, there = step_of(found.module), step_of(found.target)
    return here is not None and there is not None and here[0] == there[0] and there[1] > here[1]


def test_inside_a_layer_imports_go_along_its_order():
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if "static" not in path.parts]
    imports = [found for path in paths for found in imports_of(module_name(path), path.read_text())]
    wrong_way = [f"{found.module} imports {found.target}" for found in imports if against_the_order(found)]
    assert not wrong_way, "\n".join(wrong_way)


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("jobqueue.web.readers.produce", "jobqueue.web.context"),
        ("jobqueue.web.context", "jobqueue.web.operations"),
        ("jobqueue.web.context", "jobqueue.web.streams.top"),
        ("jobqueue.web.operations.jobs", "jobqueue.web.routes"),
        ("jobqueue.web.access.identity", "jobqueue.web.dispatch"),
        ("jobqueue.server.http1.request_parser", "jobqueue.server.http1.connection"),
        ("jobqueue.engine.commit", "jobqueue.engine.local"),
        ("jobqueue.storage.records", "jobqueue.storage.sqlite"),
        ("jobqueue.client.verbs", "jobqueue.client.client"),
    ],
)
def test_an_import_against_an_order_is_found(module, target):
    assert against_the_order(Import(module, target))
    assert not against_the_order(Import(target, module))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("jobqueue.errors", "import jobqueue.units"),
        ("jobqueue.units", "from jobqueue import settings"),
        ("jobqueue.settings", "from jobqueue.model import Job"),
        ("jobqueue.steps", "from jobqueue.model import Job"),
        ("jobqueue.model", "from jobqueue.core.queue import JobQueue"),
        ("jobqueue.core.queue", "from jobqueue.settings import Settings"),
        ("jobqueue.core.queue", "from jobqueue import settings"),
        ("jobqueue.core.queue", "from .. import settings"),
        ("jobqueue.core.queue", "from ..engine.api import Engine"),
        ("jobqueue.core.queue", "import time"),
        ("jobqueue.core.queue", "def wait():\n    from asyncio import sleep"),
        ("jobqueue.core.queue", "from random import choice as pick"),
        ("jobqueue.core.queue", "import json.decoder"),
        ("jobqueue.core.queue", "if TYPE_CHECKING:\n    from tornado.ioloop import IOLoop"),
        ("jobqueue.core.__init__", "import os, secrets"),
        ("jobqueue.engine.local", "from jobqueue.web.tornado_app import make_app"),
        ("jobqueue.engine.local", "import httptools"),
        ("jobqueue.testing", "from jobqueue.core.queue import JobQueue"),
        ("jobqueue.testing.in_process_server", "import tornado"),
        ("jobqueue.testing.kit", "from jobqueue.server.main import main"),
        ("jobqueue.web.operations", "from jobqueue.engine.local import LocalEngine"),
        ("jobqueue.web.operations", "from jobqueue.engine import local"),
        ("jobqueue.web.operations", "from jobqueue import engine"),
        ("jobqueue.web.operations", "from jobqueue.core.queue import JobQueue"),
        ("jobqueue.web.operations", "from jobqueue import MemoryEngine"),
        ("jobqueue.web.tornado_app", "from jobqueue.engine.tokens import tokens"),
        ("jobqueue.web.tornado_app", "from ..server import main"),
        ("jobqueue.server.main", "from jobqueue.core.queue import JobQueue"),
        ("jobqueue.server.main", "import jobqueue"),
        ("jobqueue.server.main", "from jobqueue.__main__ import main"),
        ("jobqueue.server.main", "from jobqueue.novelties import shiny"),
        ("jobqueue.client.client", "from jobqueue.web.routes import ROUTES"),
        ("jobqueue.client.models", "from jobqueue.model import Job"),
        ("jobqueue.client.client", "def f():\n    from jobqueue.settings import Settings"),
        ("jobqueue.client.socket_transport", "import tornado"),
        ("jobqueue.web.operations", "from jobqueue.client import Client"),
        ("jobqueue.novelties.shiny", "import re"),
        ("jobqueue.novelties", "from jobqueue.errors import Conflict"),
    ],
)
def test_an_import_against_the_arrows_is_found(module, text):
    assert complaints(module, text)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("jobqueue.errors", "from typing import ClassVar"),
        (
            "jobqueue.core.queue",
            "from msgspec import Struct\nfrom jobqueue.core.lane import Lane\nimport heapq",
        ),
        (
            "jobqueue.core.queue",
            "from .lane import Lane\nfrom . import policy\nfrom ..errors import LeaseLost",
        ),
        ("jobqueue.engine.local", "import time, os\nfrom tornado.ioloop import IOLoop"),
        ("jobqueue.web.operations", "from jobqueue.model import Job\nfrom jobqueue.engine import api"),
        ("jobqueue.web.tornado_app", "from jobqueue.engine.local import LocalEngine"),
        ("jobqueue.server.http1.front", "import httptools\nfrom jobqueue.web.http import Request"),
        ("jobqueue.__init__", "from jobqueue.engine.local import LocalEngine"),
        ("jobqueue.__main__", "from jobqueue.server.main import main"),
    ],
)
def test_an_import_along_the_arrows_is_not_found(module, text):
    assert complaints(module, text) == []
