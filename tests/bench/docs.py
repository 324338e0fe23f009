"""Writes figures into `docs/benchmarks.md`, between `<!-- name -->` and `<!-- /name -->`. Its prose is written by hand."""

import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

from tests.bench.processes import ROOT, memory_available, version
from tests.bench.report import Report, check

PAGE = ROOT / "docs" / "benchmarks.md"
_PACKAGES = ("tornado", "msgspec", "httptools", "uvloop")


def machine() -> str:
    """Describes the machine and the versions that were measured, a line each."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    packages = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    redis = version("redis-server", "--version").partition(" sha")[0]
    return "\n".join([
        f"- {cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, "
        f"{memory_available() / (1 << 30):.0f} GB of memory free; {platform.system()} {platform.release()}; "
        f"load average at the start {load():.2f}",
        f"- Python {platform.python_version()} ({sys.implementation.name}), {packages}",
        f"- {version('beanstalkd', '-v')}; {redis}; {version('gcc', '--version')}",
    ])  # fmt: skip


def _version(package: str) -> str:
    try:
        return package_version(package)
    except PackageNotFoundError:
        return "not installed"


def load() -> float:
    """Returns how many processes the machine is busy with, as an average over the last minute."""
    return os.getloadavg()[0]


def write(name: str, report: Report, on: str, load_before: float) -> None:
    """Replaces the sections `name` and `machine`, and writes what else the report has."""
    for file, svg in report.plots.items():
        (PAGE.parent / file).write_text(svg, encoding="utf-8")
    for record in report.writes:
        record()
    day = time.strftime("%Y-%m-%d", time.gmtime())
    when = f"*{day}, {_commit()}, load average {load_before:.2f}: `./scripts/bench.sh {name} --write`*"
    page = PAGE.read_text(encoding="utf-8")
    page = _replaced(page, "machine", on)
    page = _replaced(page, name, f"{when}\n\n{report.markdown()}")
    PAGE.write_text(page, encoding="utf-8")


def _replaced(page: str, name: str, text: str) -> str:
    before, begin, rest = page.partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    check(
        bool(begin and end), f"{PAGE} has no place for {name}: the lines <!-- {name} --> and <!-- /{name} -->"
    )
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def _commit() -> str:
    """Names the commit that was measured."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return f"commit {commit}" + (
            ", changed since" if _git("status", "--porcelain", "--", "jobqueue") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return "outside git"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
