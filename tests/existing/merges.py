"""Merges on the local Hub as other tools publish them."""

from __future__ import annotations

import itertools
from pathlib import Path

from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub
from hubmerge.merge.pipeline import merge_to_folder
from tests.checkpoints import push_folder, write_llama

_numbers = itertools.count()

AUTHORS_CARD = """\
---
base_model: []
license: mit
licence: license
dataset: argilla/dpo
tags:
- merge
- mistral
thumbnail: x.png
---
# My merge

It rhymes.

## Evaluation

Better than its parents.
"""


def slerp(first: str | Path, second: str | Path) -> str:
    """Returns a recipe in the words of LazyMergekit's notebook."""
    sources = "".join(f"      - model: {model}\n        layer_range: [0, 2]\n" for model in (first, second))
    settings = f"merge_method: slerp\nbase_model: {first}\nparameters:\n  t: 0.5\ndtype: bfloat16\n"
    return f"slices:\n  - sources:\n{sources}{settings}"


def licensed(folder: Path, licence: str | None) -> Path:
    if licence is not None:
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    return folder


def new_parents(hub: LocalHub, folder: Path, *licences: str | None) -> tuple[str, ...]:
    """Returns the ids of tiny models that have just been published, one a licence."""
    names = []
    for seed, licence in enumerate(licences):
        name = f"local/existing-parent-{next(_numbers)}"
        push_folder(hub.token, name, licensed(write_llama(folder / name.split("/")[1], seed=seed), licence))
        names.append(name)
    return tuple(names)


def merged_folder(folder: Path, recipe: str, *, card: str | None = AUTHORS_CARD) -> Path:
    """Returns `folder` with a merge as mergekit writes it: weights, config, tokenizer, recipe, and this card."""
    merge_to_folder(recipe, folder)
    for name in ("hubmerge.lock.json", "README.md", "lineage.json"):
        (folder / name).unlink(missing_ok=True)
    if card is not None:
        (folder / "README.md").write_text(card)
    return folder


def published(hub: LocalHub, folder: Path) -> str:
    """Returns the id of the repo that now has these files."""
    name = f"local/existing-{next(_numbers)}"
    push_folder(hub.token, name, folder)
    return name


def text_of(api: HfApi, repo: str, path: str = "README.md", *, revision: str = "main") -> str:
    return Path(api.hf_hub_download(repo, path, revision=revision)).read_text()
