"""The steps of deploy/Dockerfile, without Docker: the same commands, each stage in an environment and a folder of its
own. Some modules are compiled in place of all, which takes minutes, and which `test.sh --compiled` does. With TEST_ALL=1.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "server"))
from running import Program, environment  # noqa: E402  # the folder has to be on the path first

STEPS = re.findall(r"^([A-Z]+) (.*)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)


class Stage(NamedTuple):
    """`root` is the root folder of the image, with a Python of its own in `python`."""

    root: Path
    python: Path

    def path(self, text: str, work: str) -> Path:
        """The place on this machine of a path in the image."""
        return self.root / (text if text.startswith("/") else f"{work}/{text}").lstrip("/")

    def command(self, text: str) -> str:
        """A command whose absolute paths are those of this machine."""
        return re.sub(r"(?<=\s)/(?=\w)", f"{self.root}/", text)

    @property
    def environment(self) -> dict[str, str]:
        return environment(PATH=f"{self.python}/bin:{os.environ['PATH']}", PYTHONPATH="")


def begin(root: Path) -> Stage:
    stage = Stage(root / "root", root / "python")
    stage.root.mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "venv", str(stage.python)], check=True)
    return stage


def copy(sources: list[Path], target: Path, into: bool) -> None:
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            if into:
                target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def compile_few(script: Path) -> None:
    """Changes a copy of the script. The server says that it is compiled if `engine/local` is."""
    few = 'MODULES = ["clock", "histogram", "engine/local"]'
    text, count = re.subn(r"MODULES = \[.*?\n\]", few, script.read_text(), flags=re.DOTALL)
    assert count == 1
    script.write_text(text)


def as_other(user: str, stage: Stage) -> tuple[str, ...]:
    """What runs a command as the user; nothing where that user may not read this Python, such as one of root's home."""
    command = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
    asked = (*command, str(stage.python / "bin" / "python"), "-c", "import sys; print(sys.version)")
    done = subprocess.run(asked, env=stage.environment, capture_output=True, text=True, check=False)
    return command if done.stdout.strip() == sys.version else ()


@pytest.mark.skipif(os.environ.get("TEST_ALL") != "1", reason="compiles: with TEST_ALL=1")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, and setpriv")
def test_the_image_serves_what_it_has_compiled():
    stages: dict[str, Stage] = {}
    stage, work, user, last = None, "/", "", {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the other user is to find it
        for name, text in STEPS:
            if name == "FROM":
                _, _, known_as = text.partition(" AS ")
                stage = stages[known_as] = begin(Path(folder) / f"stage{len(stages)}")
                continue
            assert stage is not None
            if name == "WORKDIR":
                work = text
                stage.path(work, "/").mkdir(parents=True)
            elif name == "COPY":
                *given, target = text.split()
                source = (
                    stages[given.pop(0).removeprefix("--from=")] if given[0].startswith("--from=") else None
                )
                found = [ROOT / one if source is None else source.path(one, "/") for one in given]
                copy(found, stage.path(target, work), target.endswith("/"))
                if "scripts/compile.py" in given:
                    compile_few(stage.path("scripts/compile.py", work))
            elif name == "RUN":
                subprocess.run(
                    ["sh", "-c", stage.command(text)],
                    cwd=stage.path(work, "/"), env=stage.environment, check=True,
                )  # fmt: skip
            elif name == "USER":
                user = text.partition(":")[0]
            else:
                last[name] = text
        assert set(last) == {"EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
        [entry] = json.loads(last["ENTRYPOINT"])
        as_user = as_other(user, stage)
        command = (*as_user, str(stage.path(entry, work)), *json.loads(last["CMD"]))
        data = stage.path("/data", "/")
        assert (data.stat().st_uid, data.stat().st_mode & 0o777) == (int(user), 0o700)
        journal = {"JOBQUEUE_DATA": str(data)} if as_user else {}  # no other user may write there
        with Program(command, **stage.environment, **journal) as program:
            assert ", compiled" in program.start_line
            check = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
            healthy = subprocess.run(
                check, env={**stage.environment, "JOBQUEUE_PORT": str(program.port)}, check=False
            )
            assert healthy.returncode == 0
            uid = re.search(r"^Uid:\s+(\d+)", Path(f"/proc/{program.pid}/status").read_text(), re.MULTILINE)
            assert uid is not None
            assert uid[1] == (user if as_user else "0")
            assert program.stop() == 0
        token = subprocess.run(
            [*command[:-1], "token"], env=stage.environment, capture_output=True, text=True, check=True
        )
        assert len(shlex.split(token.stdout)) == 1
