"""A repository of recipes with the workflows that publish them and keep them up to date."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2

from hubmerge.card.render import templates_folder
from hubmerge.errors import AutomationError
from hubmerge.version import REPOSITORY, __version__
from hubmerge.weights.reference import is_hub_id

WORKFLOW = "republish.yml"
BRANCH = "main"
UNKNOWN_REPOSITORY = "OWNER/REPOSITORY"
"""Stands in the claims for the repository on GitHub, where the folder does not tell it."""

_GITHUB = re.compile(r"github\.com[:/](?P<name>[\w.-]+/[\w.-]+?)(?:\.git)?/?\s*\Z", re.ASCII)


@dataclass(frozen=True)
class RecipeRepository:
    """What was written.

    Attributes:
        target: The repo on the Hub that the example recipe is published to.
        files: Relative to `folder`.
        claims: What the job's identity says, to be entered as the Trusted Publisher of `target`.
    """

    folder: Path
    target: str
    files: tuple[Path, ...]
    claims: Mapping[str, str]

    @property
    def recipe(self) -> Path:
        """The example, relative to `folder`."""
        return self.files[0]


def start_repository(folder: Path, target: str) -> RecipeRepository:
    """Returns what was written into the folder, which is created if it is not there.

    Raises:
        AutomationError: `target` is no OWNER/NAME, or a file is there already; nothing was written.
    """
    if not is_hub_id(target) or "/" not in target:
        raise AutomationError(f"{target!r} is not the name of a repo on the Hub", hint="Name it OWNER/NAME.")
    claims = {"repository": _github_repository(folder), "branch": BRANCH, "workflow": WORKFLOW}
    texts = _texts(target, claims)
    for path in texts:
        if (folder / path).exists():
            raise AutomationError(f"{folder / path} exists", hint="Choose another folder; nothing is overwritten.")
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return RecipeRepository(folder, target, tuple(texts), claims)


def _texts(target: str, claims: Mapping[str, str]) -> dict[Path, str]:
    namespace, _, name = target.partition("/")
    workflows = Path(".github/workflows")
    templates = {
        Path("merges") / f"{name}.yaml": "recipe.yaml.jinja",
        workflows / WORKFLOW: "workflows/republish.yml.jinja",
        workflows / "plan.yml": "workflows/plan.yml.jinja",
        Path("README.md"): "README.md.jinja",
    }
    words = {"target": target, "namespace": namespace, "name": name, "source": REPOSITORY, "version": __version__}
    environment = _environment()
    return {
        path: environment.get_template(template).render(**words, claims=claims) for path, template in templates.items()
    }


def _environment() -> jinja2.Environment:
    # GitHub's own expressions are written ${{ }}.
    return jinja2.Environment(  # noqa: S701  # YAML and Markdown, not HTML
        loader=jinja2.FileSystemLoader(templates_folder() / "init"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
    )


def _github_repository(folder: Path) -> str:
    command = ["git", "-C", str(folder), "remote", "get-url", "origin"]
    try:
        url = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN_REPOSITORY
    found = _GITHUB.search(url)
    return found["name"] if found else UNKNOWN_REPOSITORY
