"""Compiles the C sources of hubmerge/merge/native into the package when a wheel is built, or an editable install.

Without a C compiler, or if it fails, the package is a pure one and its torch kernels do the work.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("hubmerge", "merge", "native")
SOURCES = ("kernels.c", "selection.c", "pages.c", "operands.h", "numbers.h")
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
"""Optimisations that change no result: kernels.c says which."""


class KernelBuildHook(BuildHookInterface[Any]):
    """Adds the compiled library to a wheel, which is then one for this platform and any Python 3."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the library before hatchling collects the files."""
        del version
        folder = Path(self.root, NATIVE)
        for stale in folder.glob("_kernels_*"):
            stale.unlink()
        library = library_path(folder)
        if problem := compile_library([folder / name for name in SOURCES if name.endswith(".c")], library):
            self.app.display_warning(f"no compiled kernels, merges take several times as long: {problem}")
            return
        build_data["artifacts"].append(f"/{NATIVE.as_posix()}/{library.name}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def library_path(folder: Path) -> Path:
    """Returns where hubmerge.merge.native.library looks for what was built from a folder's sources."""
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in SOURCES)).hexdigest()
    return folder / f"_kernels_{digest[:12]}.so"


def compile_library(sources: Sequence[Path], library: Path) -> str | None:
    """Builds the library with $CC or cc; returns what went wrong in one line, or None."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    command = [*compiler, *FLAGS, "-o", str(library), *map(str, sources), "-lm"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as error:
        return f"cannot run {compiler[0]}: {error.strerror}"
    except subprocess.CalledProcessError as error:
        lines = str(error.stderr).strip().splitlines()
        return next((line for line in lines if "error" in line), f"{compiler[0]} exited with {error.returncode}")
    return None
