"""The Pythons that the package is for: what scripts/pythons.sh tests, and what wheels are built for."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "pythons.sh"


def test_each_python_that_wheels_are_built_for_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    built = [name.removeprefix("cp3").removesuffix("-*") for name in project["tool"]["cibuildwheel"]["build"]]
    [tested] = re.findall(r"\$\{versions:-([\d. ]+)\}", SCRIPT.read_text())
    assert [f"3.{minor}" for minor in built] == tested.split()
    assert project["project"]["requires-python"] == f">={tested.split()[0]}"


def test_a_python_that_is_not_there_is_skipped_by_name():
    done = subprocess.run([SCRIPT, "3.97", "3.98"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Python 3.97: skipped, it is not installed here",
        "Python 3.98: skipped, it is not installed here",
    ]
