"""The command line as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.end_to_end.merges import SHARD_BYTES

PATIENCE_SECONDS = 100


class CommandLine:
    """Runs `hubmerge merge-and-push` on one recipe, with temporary files and a Hugging Face home of its own.

    Attributes:
        temporary: Where the process keeps what it does not need for long.
    """

    def __init__(self, folder: Path, recipe: dict[str, Any], **variables: str) -> None:
        self._folder = folder
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        (folder / "recipe.yml").write_text(json.dumps(recipe))
        homes = {"HF_HOME": str(folder / "home"), "TMPDIR": str(self.temporary)}
        self._variables = os.environ | homes | variables

    def start(self, *words: str, **details: Any) -> subprocess.Popen[str]:
        """Starts a push to the repo, or with the options, that the words name."""
        command = [sys.executable, "-m", "hubmerge", "merge-and-push", "recipe.yml", *words]
        return subprocess.Popen(
            [*command, "--shard-size", str(SHARD_BYTES)],
            cwd=self._folder,
            env=self._variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **details,
        )

    def run(self, *words: str, **details: Any) -> subprocess.CompletedProcess[str]:
        """Returns how it ended."""
        process = self.start(*words, **details)
        stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
