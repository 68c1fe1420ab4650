"""Repos without weights for tests of ancestries: cards, recipes and adapter configs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml
from huggingface_hub import CommitOperationAdd, HfApi

from hubmerge.localhub import LocalHub


@dataclass(frozen=True)
class Published:
    """One repo as its author publishes it."""

    repo_id: str
    metadata: Mapping[str, object] = field(default_factory=lambda: {"license": "apache-2.0"})
    body: str = ""
    recipe: str | None = None
    adapter: Mapping[str, object] | None = None

    @property
    def card(self) -> str:
        front = f"---\n{yaml.safe_dump(dict(self.metadata), sort_keys=False)}---\n" if self.metadata else ""
        return f"{front}# {self.repo_id.split('/')[-1]}\n\n{self.body}"

    def files(self) -> dict[str, str]:
        files = {"README.md": self.card}
        if self.recipe is not None:
            files["mergekit_config.yml"] = self.recipe
        if self.adapter is not None:
            files["adapter_config.json"] = json.dumps(self.adapter)
        return files


def publish(hub: LocalHub, *repos: Published) -> None:
    """Puts repos on the Hub, each by its owner."""
    apis: dict[str, HfApi] = {}
    for repo in repos:
        owner = repo.repo_id.split("/")[0]
        api = apis.setdefault(owner, HfApi(token=hub.create_user(owner)))
        api.create_repo(repo.repo_id)
        operations = [CommitOperationAdd(path, text.encode()) for path, text in repo.files().items()]
        api.create_commit(repo.repo_id, operations, commit_message="publish")


def api_of(hub: LocalHub, owner: str) -> HfApi:
    return HfApi(token=hub.create_user(owner))


def fenced(recipe: str) -> str:
    return f"## Configuration\n\n```yaml\n{recipe}```\n"
