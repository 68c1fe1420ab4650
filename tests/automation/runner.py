"""Steps of an action or a workflow, run as GitHub's runner runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github/actions/merge-and-push"
INPUT = re.compile(r"\$\{\{ inputs\.([\w-]+) \}\}")


def read_yaml(path: Path) -> dict[str, Any]:
    # A YAML 1.1 reader takes the key `on` for true.
    return yaml.safe_load(path.read_text().replace("\non:", '\n"on":', 1))


def filled(values: Mapping[str, str], inputs: Mapping[str, str]) -> dict[str, str]:
    return {name: INPUT.sub(lambda found: inputs[found[1]], value) for name, value in values.items()}


class Runner:
    """A job in a workspace; the summary and the outputs are what its steps have written so far."""

    def __init__(self, workspace: Path, **variables: str) -> None:
        self._files = {name: workspace / name for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
        for file in self._files.values():
            file.touch()
        self._workspace = workspace
        given = {"GITHUB_ACTION_PATH": str(ACTION), "RUNNER_TEMP": str(workspace), "PYTHONPATH": str(ROOT)}
        given["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._variables = os.environ | given | {name: str(file) for name, file in self._files.items()} | variables

    @property
    def summary(self) -> str:
        return self._files["GITHUB_STEP_SUMMARY"].read_text()

    @property
    def outputs(self) -> dict[str, str]:
        lines = self._files["GITHUB_OUTPUT"].read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def run(self, step: Mapping[str, Any], inputs: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        script = self._workspace / "step.sh"
        script.write_text(step["run"])
        assert "${{" not in step["run"], "an expression in a script is code that somebody else may write"
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            cwd=self._workspace,
            env=self._variables | filled(step.get("env", {}), inputs),
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    def merge_and_push(self, **given: str) -> subprocess.CompletedProcess[str]:
        """Returns how the last step of the action ended."""
        action = read_yaml(ACTION / "action.yml")
        inputs = {name: each.get("default", "") for name, each in action["inputs"].items()}
        inputs |= {name.replace("_", "-"): value for name, value in given.items()}
        return self.run(action["runs"]["steps"][-1], inputs)
