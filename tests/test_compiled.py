"""The modules that mypyc compiles, and what `scripts/compile.sh` does with and without a compiler.

The whole suite tests that the compiled package behaves like the sources: `./scripts/test.sh --compiled`.
"""

import ast
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from msgspec import Struct

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "server"))
from running import until  # noqa: E402  # the folder has to be on the path first

sys.path.insert(0, str(ROOT / "scripts"))
try:
    from compile import MODULES
finally:
    sys.path.remove(str(ROOT / "scripts"))


@pytest.mark.parametrize("name", MODULES)
def test_compiled_modules_have_no_structs(name):
    """mypyc drops the class arguments of a struct: `gc=False`, `array_like`, `frozen`."""
    module = importlib.import_module(f"jobqueue.{name.replace('/', '.')}")
    made_here = [kind for kind in vars(module).values() if getattr(kind, "__module__", "") == module.__name__]
    assert not [kind for kind in made_here if isinstance(kind, type) and issubclass(kind, Struct)]


@pytest.mark.parametrize("name", MODULES)
def test_compiled_classes_inherit_from_compiled_ones(name):
    """mypyc makes others with the memory of their own attributes only: the process crashes when they are used."""
    module = importlib.import_module(f"jobqueue.{name.replace('/', '.')}")
    compiled = {f"jobqueue.{each.replace('/', '.')}" for each in MODULES} | {
        "builtins",
        "abc",
        "logging",
        "typing",
    }
    for kind in vars(module).values():
        if isinstance(kind, type) and kind.__module__ == module.__name__:
            assert {base.__module__ for base in kind.__mro__} <= compiled, kind


# Tests replace these.
NOT_FINAL = {
    ("cluster/shard", "PATIENCE"),
    ("engine/commit", "MAX_BYTES"),
    ("web/writers/encoder", "_encode"),
}


@pytest.mark.parametrize("name", MODULES)
def test_what_compiled_modules_define_once_is_final(name):
    """mypyc looks other names up in the dict of the module, each time."""
    for line in ast.parse((ROOT / "jobqueue" / f"{name}.py").read_text()).body:
        if isinstance(line, ast.Assign):
            targets, kind = [ast.unparse(target) for target in line.targets], ast.unparse(line.value)
            allowed = kind.startswith("TypeVar(") or (name, targets[0]) in NOT_FINAL
        elif isinstance(line, ast.AnnAssign):
            targets, kind = [ast.unparse(line.target)], ast.unparse(line.annotation)
            allowed = kind.startswith(("Final", "TypeAlias"))
        else:
            continue
        assert allowed, f"{targets[0]}: declare it Final, or as a TypeAlias"


@pytest.fixture
def repository(tmp_path):
    """A repository with a package that compiles at once, and a complete .venv."""
    root = tmp_path / "a repository"
    for folder in ("scripts", "jobqueue", ".venv/bin"):
        (root / folder).mkdir(parents=True)
    for script in ("run.sh", "venv.sh", "compile.sh", "beside.py"):
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
    place, said = use_compiled(repository)
    assert (place, "compiling" in said[0], said[1:]) == (".venv/compiled", True, ["installing the compiler"])
    assert use_compiled(repository) == (".venv/compiled", [])
    (repository / "jobqueue" / "it.py").write_text("two\n")
    place, said = use_compiled(repository)
    assert (place, len(said)) == (".venv/compiled", 2)
    assert sorted(path.name for path in (repository / ".venv").iterdir()) == [
        "bin",
        "compiled",
        "compiled.log",
    ]


# -- beside the server ------------------------------------------------------------------------------

# A package whose server prints where it runs from, and ends with its standard input; as `python -m jobqueue`.
SERVER = """
import sys
if "serve" in sys.argv:
    print("compiled" if "/.venv/compiled/" in __file__ else "sources", flush=True)
    sys.stdin.read()
"""
# Compiles when a file `go` is there.
SLOW = """
import os, pathlib, shutil, sys, time
here = pathlib.Path(__file__).parents[1]
print(os.getpid(), file=open(here / "compiling", "w"), flush=True)
while not (here / "go").exists():
    time.sleep(0.01)
shutil.copytree(here / "jobqueue", pathlib.Path(sys.argv[1]) / "jobqueue")
"""


@pytest.fixture
def started(repository):
    """Starts `run.sh` in a repository that compiles slowly."""
    (repository / "jobqueue" / "__init__.py").touch()
    (repository / "jobqueue" / "__main__.py").write_text(SERVER)
    (repository / "scripts" / "compile.py").write_text(SLOW)
    (repository / "requirements.txt").write_text("no-such-package==1\n")
    (repository / ".venv" / "installed").write_text("no-such-package==1\n")
    running = []

    def start(*arguments):
        process = subprocess.Popen(
            ["/bin/sh", str(repository / "scripts" / "run.sh"), *arguments], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")},
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def compiler_of(repository):
    """Returns the process that compiles, once there is one."""
    file = repository / "compiling"
    until(lambda: file.exists() and file.read_text().endswith("\n"), 60)
    return int(file.read_text())


def test_the_first_start_serves_at_once_and_the_next_one_serves_the_copy(repository, started):
    first = started()
    assert first.stdout.readline() == "sources\n", first.stderr.read()
    compiler_of(repository)
    (repository / "go").touch()
    until((repository / ".venv" / "compiled" / "of").exists, 60)
    _, said = first.communicate()
    assert "compiled meanwhile" in said
    assert started().stdout.readline() == "compiled\n"
    assert not list((repository / ".venv").glob("compiled.work*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_ends_takes_the_compilation_with_it(repository, started, number):
    first = started()
    assert first.stdout.readline() == "sources\n"
    pid = compiler_of(repository)
    assert lives(pid)
    first.send_signal(number)
    first.wait(60)
    until(lambda: not lives(pid), 60)
    until(lambda: not list((repository / ".venv").glob("compiled*/")), 60)


def test_run_sh_compile_does_it_now_and_says_how_far_it_is(repository, started):
    (repository / "go").touch()
    done = started("compile")
    _, said = done.communicate(timeout=60)
    assert (done.returncode, "installing the compiler" in said) == (0, True)
    assert started().stdout.readline() == "compiled\n"
    again = started("compile")
    assert "compiled already" in again.communicate(timeout=60)[1]


def test_run_sh_compile_tries_again_what_has_failed(repository, started):
    script = repository / "scripts" / "compile.py"
    script.write_text("import os, sys; sys.exit(not os.path.exists(__file__ + '.mended'))")
    for status in (1, 1):
        done = started("compile")
        done.communicate(timeout=60)
        assert done.returncode == status
    Path(f"{script}.mended").touch()
    done = started("compile")
    done.communicate(timeout=60)
    assert done.returncode == 0


def test_a_venv_that_is_a_link_is_not_cleared(repository, started):
    """It belongs to another checkout."""
    other = repository.with_name("other")
    (repository / ".venv").rename(other)
    (other / "installed").unlink()
    (repository / ".venv").symlink_to(other)
    done = started("serve")
    _, said = done.communicate(timeout=60)
    assert (done.returncode, "symbolic link" in said) == (1, True)
    assert (other / "bin" / "python").is_symlink()


def test_jobqueue_compile_0_serves_the_sources(repository):
    assert use_compiled(repository, JOBQUEUE_COMPILE="0") == (".", [])
    use_compiled(repository)
    assert use_compiled(repository, JOBQUEUE_COMPILE="0") == (".", [])


def test_a_failed_compilation_serves_the_sources_and_is_reported_once(repository):
    (repository / "scripts" / "compile.py").write_text("raise SystemExit('no way')\n")
    place, said = use_compiled(repository)
    assert (place, said[2:]) == (".", ["could not compile: .venv/compiled.log says why"])
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
