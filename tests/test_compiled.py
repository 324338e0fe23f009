"""What mypyc is given, and what `scripts/compile.sh` does where it can or cannot compile.

That the compiled package does what the sources do is shown by the whole suite: `./scripts/test.sh --compiled`.
"""

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from msgspec import Struct

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
try:
    from compile import MODULES
finally:
    sys.path.remove(str(ROOT / "scripts"))


@pytest.mark.parametrize("name", MODULES)
def test_what_is_compiled_has_no_structs(name):
    """mypyc drops the class arguments of a struct: `gc=False`, `array_like`, `frozen`."""
    module = importlib.import_module(f"jobqueue.{name.replace('/', '.')}")
    made_here = [kind for kind in vars(module).values() if getattr(kind, "__module__", "") == module.__name__]
    assert not [kind for kind in made_here if isinstance(kind, type) and issubclass(kind, Struct)]


@pytest.fixture
def repository(tmp_path):
    """A repository with a package that compiles at once, and a complete .venv."""
    root = tmp_path / "a repository"
    for folder in ("scripts", "jobqueue", ".venv/bin"):
        (root / folder).mkdir(parents=True)
    for script in ("venv.sh", "compile.sh"):
        shutil.copy(ROOT / "scripts" / script, root / "scripts")
    (root / "scripts" / "requirements.txt").touch()
    (root / "jobqueue" / "it.py").write_text("one\n")
    (root / "scripts" / "compile.py").write_text(
        "import pathlib, sys\n(pathlib.Path(sys.argv[1]) / 'jobqueue').mkdir()\n"
    )
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return root


def use_compiled(root, user=None, **environment):
    """Returns `$package` relative to the repository, and the lines on stderr."""
    sourced = '. "$root/scripts/venv.sh"; . "$root/scripts/compile.sh"'
    script = f'{sourced}; python=$root/.venv/bin/python; use_compiled; echo "$package"'
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")}
    done = subprocess.run(
        ["/bin/sh", "-euc", script], env={**kept, "root": str(root), **environment}, capture_output=True,
        text=True, timeout=60, check=True, user=user,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING: ")]
    return os.path.relpath(done.stdout.strip(), root), lines


def test_it_is_compiled_once_and_again_when_the_sources_change(repository):
    place, [said] = use_compiled(repository)
    assert (place, "compiling" in said) == (".venv/compiled", True)
    assert use_compiled(repository) == (".venv/compiled", [])
    (repository / "jobqueue" / "it.py").write_text("two\n")
    place, said = use_compiled(repository)
    assert (place, len(said)) == (".venv/compiled", 1)
    assert sorted(path.name for path in (repository / ".venv").iterdir()) == [
        "bin",
        "compiled",
        "compiled.log",
    ]


def test_jobqueue_compile_0_serves_the_sources(repository):
    assert use_compiled(repository, JOBQUEUE_COMPILE="0") == (".", [])
    use_compiled(repository)
    assert use_compiled(repository, JOBQUEUE_COMPILE="0") == (".", [])


def test_a_failed_compilation_serves_the_sources_and_is_reported_once(repository):
    (repository / "scripts" / "compile.py").write_text("raise SystemExit('no way')\n")
    place, said = use_compiled(repository)
    assert (place, said[1:]) == (".", ["could not compile: .venv/compiled.log says why"])
    assert "no way" in (repository / ".venv" / "compiled.log").read_text()
    assert use_compiled(repository) == (".", [])


def test_a_venv_that_is_not_writable_serves_the_sources(repository):
    place = Path(tempfile.mkdtemp())
    try:
        root = Path(shutil.copytree(repository, place / "a repository", symlinks=True))
        for path in (place, root, *root.rglob("*")):
            path.is_symlink() or path.chmod(0o555 if path.is_dir() else 0o444)
        other = {"user": 65534} if os.getuid() == 0 else {}
        assert use_compiled(root, **other) == (".", [])
        assert not (root / ".venv" / "compiled").exists()
    finally:
        for path in place.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(place)


def test_without_a_c_compiler_the_sources_are_served(repository, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cat", "cksum", "find", "mkdir", "mv", "rm", "sort", "xargs"):
        (tools / tool).symlink_to(shutil.which(tool))
    place, [said] = use_compiled(repository, PATH=str(tools))
    assert (place, "no C compiler" in said) == (".", True)
    assert use_compiled(repository, PATH=str(tools)) == (".", [])
