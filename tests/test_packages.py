"""The packages: what they are called, what they hold, what they need, and that the command runs from one."""

import ast
import importlib.metadata
import importlib.util
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from jobqueue.version import VERSION

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
sys.path.append(str(ROOT / "tests" / "server"))
from running import Program, environment  # noqa: E402  # the folder has to be on the path first

BASE = ("msgspec", "httptools")


def names(requirements):
    return {re.split(r"[<>=;\s]", requirement)[0] for requirement in requirements}


def test_the_base_needs_two_packages_and_the_extras_the_rest_of_what_is_pinned():
    assert names(PROJECT["dependencies"]) == set(BASE)
    pinned = names((ROOT / "requirements.txt").read_text().split("\n")) - {""}
    extras = PROJECT["optional-dependencies"]
    assert names(extras["server"]) == pinned - set(BASE) - {"asyncpg", "greenlet"}
    assert names(extras["postgres"]) == {"asyncpg", "greenlet"}


def test_the_command_and_the_messages_name_the_package_as_it_is_called():
    assert PROJECT["scripts"] == {"jobqueue": "jobqueue.__main__:main"}
    told = (ROOT / "jobqueue" / "cli" / "serve.py").read_text() + (ROOT / "docs" / "install.md").read_text()
    assert set(re.findall(r"([\w-]+)\[server\]", told)) == {PROJECT["name"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with what the base needs, for a Python that looks nowhere else."""
    folder = tmp_path_factory.mktemp("base")
    for name in BASE:
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        (folder / name).symlink_to(Path(found.origin).parent)
    return folder


def on_base(base, code, *arguments, package=ROOT):
    """Runs code without any package but those of the base."""
    return subprocess.run(
        [sys.executable, "-S", "-P", *(["-c", code] if code else ["-m", "jobqueue"]), *arguments],
        env=environment(PYTHONPATH=f"{package}:{base}", HOME=str(base)), cwd=base,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_client_worker_and_commands_run_on_the_base_alone(base):
    done = on_base(base, "from jobqueue import AsyncClient, Client, Jobs, Worker; Worker(Jobs(), ['x'])")
    assert (done.returncode, done.stderr) == (0, "")
    for arguments, status in (
        (["queues", "--text", "--url", "http://127.0.0.1:1"], 4),
        (["enqueue", "x", "a=1", "--url", "http://127.0.0.1:1"], 4),
        (["work", "-q", "x", "-o", "--url", "http://127.0.0.1:1", "--", "no-such-command"], 2),
        (["completion", "bash"], 0),
        (["token", "ann", "enqueue"], 0),
        (["journal", "verify", "--data", "/nonexistent"], 1),
    ):
        done = on_base(base, "", *arguments)
        assert done.returncode == status, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_the_program_in_the_readme_runs_on_the_base_alone(base, tmp_path):
    [code] = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "shop.py").write_text(code)
    python = [sys.executable, "-S", "-P"]
    with Program() as server:
        given = environment(PYTHONPATH=f"{ROOT}:{base}", JOBQUEUE_URL=f"http://127.0.0.1:{server.port}")
        worker = subprocess.Popen(
            [*python, "-m", "jobqueue", "work", "shop:jobs"], env=given, cwd=tmp_path,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            done = subprocess.run(
                [*python, "shop.py"], env=given, cwd=tmp_path, capture_output=True, text=True, timeout=60,
                check=False,
            )  # fmt: skip
        finally:
            worker.terminate()
            log = worker.communicate(timeout=60)[1]
    assert (done.stdout, done.stderr) == ("Hello sent to ada@example.com\n", "")
    assert worker.returncode == 0, log


def test_serve_without_the_extra_says_so_in_one_line(base):
    done = on_base(base, "", "serve")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "pip install 'jobqueue-http[server]'" in done.stderr


# -- built ------------------------------------------------------------------------------------------

with_hatchling = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None,
    reason="hatchling, which builds the packages, is not installed",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source package, and the wheel that is made of it, as `python -m build` does."""
    folder = tmp_path_factory.mktemp("built")

    def build(kind, source):
        code = f"import hatchling.build, sys; print(hatchling.build.build_{kind}(sys.argv[1]))"
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], cwd=source, capture_output=True, text=True, check=True
        )
        return folder / done.stdout.split()[-1]

    sdist = build("sdist", ROOT)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return sdist, build("wheel", folder / sdist.name.removesuffix(".tar.gz"))


@with_hatchling
def test_the_wheel_is_pure_and_has_every_module_and_the_workers(built):
    _, wheel = built
    assert wheel.name == f"jobqueue_http-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if name.startswith("jobqueue/")}
    package = ROOT / "jobqueue"
    kinds = (".py", ".sh", ".typed", ".css", ".js", ".svg")
    kept = {str(path.relative_to(ROOT)) for path in package.rglob("*") if path.suffix in kinds}
    assert found == kept | {"jobqueue/py.typed"}


@with_hatchling
def test_the_source_package_has_what_a_checkout_needs(built):
    sdist, _ = built
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    assert found >= {
        "README.md",
        "LICENSE",
        "requirements.txt",
        "scripts/run.sh",
        "docs/api.md",
        "tests/conftest.py",
    }


@with_hatchling
def test_the_command_runs_from_the_wheel_on_the_base_alone(built, base, tmp_path):
    with zipfile.ZipFile(built[1]) as archive:
        archive.extractall(tmp_path)
    done = on_base(base, "", "--version", package=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"jobqueue {VERSION}\n")


@with_hatchling
@pytest.mark.skipif(
    importlib.util.find_spec("mypyc") is None, reason="mypyc, which compiles, is not installed"
)
def test_a_wheel_has_compiled_modules_if_they_are_wanted(tmp_path):
    """Two modules in place of all, which would take minutes."""
    root = tmp_path / "a copy"
    for name in ("jobqueue", "scripts"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root)
    script = root / "scripts" / "compile.py"
    few = re.sub(
        r"MODULES = \[.*?\n\]", 'MODULES = ["clock", "histogram"]', script.read_text(), flags=re.DOTALL
    )
    script.write_text(few)
    code = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, env=environment(JOBQUEUE_COMPILE="1"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    wheel = tmp_path / done.stdout.split()[-1]
    here = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name.startswith(f"jobqueue_http-{VERSION}-{here}-{here}-")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        assert "jobqueue/clock.py" in archive.namelist()
    code = "from jobqueue import clock, histogram; print(clock.__file__, histogram.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment(PYTHONPATH=str(tmp_path / "installed")),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert all(name.endswith(".so") for name in done.stdout.split())


@with_hatchling
def test_a_build_has_the_packages_that_the_compiled_modules_import(monkeypatch):
    """A build has nothing but these, and the compiler reads their types."""
    monkeypatch.setenv("JOBQUEUE_COMPILE", "1")
    hook = runpy.run_path(str(ROOT / "scripts" / "hatch_build.py"))["CompiledModules"]
    there = {re.split(r"[=;]", line)[0] for line in hook.dependencies(None)}
    modules = runpy.run_path(str(ROOT / "scripts" / "compile.py"))["MODULES"]
    imported = set()
    for name in modules:
        for node in ast.walk(ast.parse((ROOT / "jobqueue" / f"{name}.py").read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    imported -= {*sys.stdlib_module_names, "jobqueue"}
    owners = importlib.metadata.packages_distributions()
    needed = {owners[name][0].lower().replace("_", "-") for name in imported}
    assert {"msgspec", "httptools"} <= needed <= there
