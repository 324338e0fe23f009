"""Type checkers accept the calls in `client/typed.py` and `worker/typed.py` and refuse the lines that are marked
there; and they accept the examples of the docs. Both do: mypy --strict and pyright.

`pip install -r tests/requirements-ci.txt` brings a pyright; without one its test is skipped.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jobqueue

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/client.md", "docs/python.md", "docs/schedules.md")
PYTHON = Path(sys.executable)
PYRIGHT = next(
    (found for name in ("basedpyright", "pyright") if (found := shutil.which(name, path=PYTHON.parent))),
    shutil.which("pyright"),
)
pytestmark = pytest.mark.skipif(
    Path(jobqueue.__file__).parents[1] != ROOT, reason="types are those of the sources"
)


@pytest.fixture
def folder(tmp_path):
    """A folder with all that is checked."""
    for group in ("client", "worker"):
        shutil.copy(ROOT / "tests" / group / "typed.py", tmp_path / f"calls_of_{group}.py")
    for page in PAGES:
        blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
        for number, block in enumerate(blocks):
            (tmp_path / f"{Path(page).stem.lower()}_{number}.py").write_text(block)
    (tmp_path / "python_0.py").rename(tmp_path / "shop.py")  # as the page calls it
    return tmp_path


def check(folder, command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    lines = re.findall(r"^\s*(?:\S*/)?(\w+\.py):(\d+)(?::\d+)?(?: -|:) error", output, re.MULTILINE)
    refused = {(name, int(number)) for name, number in lines}
    marked = {
        (path.name, number)
        for path in folder.glob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "  # wrong: " in line
    }
    assert len(marked) > 30
    assert (refused - marked, marked - refused) == (set(), set()), output


def test_mypy_accepts_right_calls_and_examples_and_refuses_wrong_calls(folder):
    files = [str(path) for path in sorted(folder.glob("*.py"))]
    check(folder, [PYTHON, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", *files])


@pytest.mark.skipif(PYRIGHT is None, reason="pyright is not installed")
def test_pyright_accepts_right_calls_and_examples_and_refuses_wrong_calls(folder):
    environment = PYTHON.parent.parent
    config = {
        "include": ["*.py"], "extraPaths": [str(ROOT)], "typeCheckingMode": "standard", "pythonVersion": "3.11",
        "venvPath": str(environment.parent), "venv": environment.name,
    }  # fmt: skip
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    check(folder, [PYRIGHT, "--project", str(folder)])
