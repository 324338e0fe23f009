"""A hook of the build: with JOBQUEUE_COMPILE=1 the wheel gets the compiled modules of `scripts/compile.py`.

The sources are in such a wheel as well. Python imports a compiled module where there is one. Without the
variable the wheel is pure: for every Python and every machine.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SCRIPTS = Path(__file__).resolve().parent


def _wanted(version: str = "standard") -> bool:
    return os.environ.get("JOBQUEUE_COMPILE") == "1" and version == "standard"


class CompiledModules(BuildHookInterface):  # type: ignore[type-arg]  # hatchling is not installed for the checks
    _folder: Path | None = None

    def dependencies(self) -> list[str]:
        """Returns the compiler, and the packages whose types it reads, as they are pinned."""
        pins = [_SCRIPTS / "requirements.txt", _SCRIPTS.parent / "requirements.txt"] if _wanted() else []
        lines = [line for file in pins for line in file.read_text().split("\n")]
        return [line for line in lines if line and not line.startswith("#")]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not _wanted(version):
            return
        self._folder = folder = Path(tempfile.mkdtemp())
        subprocess.run([sys.executable, "-P", str(_SCRIPTS / "compile.py"), str(folder), "2"], check=True)
        for library in folder.rglob("*.so"):
            build_data["force_include"][str(library)] = str(library.relative_to(folder))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder)
