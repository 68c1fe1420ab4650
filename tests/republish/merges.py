"""Published merges and parents that move on."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner, Result
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_and_push
from tests.checkpoints import push_folder, write_llama

OPTIONS = MergeOptions(shard_bytes=10_000, diagnostics=False, lineage=False)
"""Four output files of a model of the shape below."""

PARENT_SHARD = "8KB"
SHAPE = {"layers": 4, "hidden": 16, "vocab": 128}

_numbers = itertools.count()


@dataclass(frozen=True)
class Published:
    """A merge on the local Hub, and its parents there and on the disk."""

    hub: LocalHub
    api: HfApi
    repo: str
    parents: tuple[str, ...]
    folders: tuple[Path, ...]

    def run(self, *words: object) -> Result:
        """Runs a command of hubmerge on the merge; the token is for reading and writing."""
        command, *options = map(str, words)
        tokens = ["--source-token", self.hub.token]
        tokens += ["--target-token", self.hub.token] if command == "republish" else []
        return CliRunner().invoke(main, [command, self.repo, *options, *tokens])

    def text(self, path: str, *, revision: str = "main") -> str:
        """Returns a small file of the merge."""
        return Path(self.api.hf_hub_download(self.repo, path, revision=revision)).read_text()

    def write(self, path: str, text: str, *, repo: str | None = None) -> str:
        """Returns the commit that gives a repo, else that of the merge, a small file."""
        target = repo or self.repo
        return self.api.upload_file(path_or_fileobj=text.encode(), path_in_repo=path, repo_id=target).oid

    def shards(self, revision: str = "main") -> dict[str, str]:
        """Returns the SHA-256 of each weight file of the merge."""
        files = self.api.list_repo_tree(self.repo, revision=revision)
        return {file.path: file.lfs.sha256 for file in files if file.path.endswith(".safetensors")}

    def head(self) -> str:
        return str(self.api.model_info(self.repo).sha)

    def change_weights(self, number: int = 0, *, file: int = -1, tensors: Collection[str] | None = None) -> str:
        """Returns the commit that changes tensors in one weight file of a parent, all of them unless they are named."""
        path = sorted(self.folders[number].glob("*.safetensors"))[file]
        weights = load_file(path)
        weights |= {name: weights[name] + 1 for name in tensors or weights}
        save_file(weights, path, metadata={"format": "pt"})
        repo = self.parents[number]
        return self.api.upload_file(path_or_fileobj=path, path_in_repo=path.name, repo_id=repo).oid


def publish_merge(
    hub: LocalHub, folder: Path, recipe: Any = None, *, options: MergeOptions = OPTIONS, **details: Any
) -> Published:
    """Returns the merge of two new parents by `recipe`, a function of their names, else a linear one."""
    number = next(_numbers)
    names = tuple(f"local/followed-{number}-{letter}" for letter in "ab")
    folders = tuple(
        write_llama(folder / name.rpartition("/")[2], seed=seed, max_shard_size=PARENT_SHARD, **SHAPE)
        for seed, name in enumerate(names)
    )
    for name, path in zip(names, folders, strict=True):
        push_folder(hub.token, name, path)
    repo = f"local/following-{number}"
    text = (recipe or linear)(*names)
    merge_and_push(text, repo, target_token=hub.token, options=options, **details)
    return Published(hub, HfApi(token=hub.token), repo, names, folders)


def linear(first: str, second: str) -> str:
    """Returns a recipe with a comment, which is text to be kept."""
    return f"""\
# mine
merge_method: linear
dtype: bfloat16
models:
  - model: {first}
    parameters: {{weight: 0.25}}
  - model: {second}
    parameters: {{weight: 0.75}}
"""


def card(licence: str) -> str:
    return f"---\nlicense: {licence}\n---\n"


def adapter_weights(folder: Path, *, seed: int) -> Path:
    """Returns the file of a LoRA adapter for the first layer's query projection."""
    generator = torch.Generator().manual_seed(seed)
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{prefix}.lora_A.weight": torch.randn(2, SHAPE["hidden"], generator=generator),
        f"{prefix}.lora_B.weight": torch.randn(SHAPE["hidden"], 2, generator=generator),
    }
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder / "adapter_model.safetensors"
