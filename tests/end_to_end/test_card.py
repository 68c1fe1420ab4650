"""What a published card tells its readers to run, run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import CardError
from hubmerge.localhub import LocalHub
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_and_push, merge_to_folder
from hubmerge.merge.preview import preview_card
from hubmerge.weights.shards import hash_file
from tests.end_to_end.merges import SHARD_BYTES, Parents, new_repo, shard_hashes, weight_bytes_read, write_parents

ROOT = Path(__file__).parents[2]
OPTIONS = MergeOptions(shard_bytes=SHARD_BYTES, seed=7)


@pytest.fixture(scope="module")
def published(hub: LocalHub, parents: Parents) -> str:
    """A repo with a random merge, made with options that its recipe does not have."""
    first, second = parents.repos
    models = [{"model": first}, {"model": second, "parameters": {"weight": 0.5, "density": 0.5}}]
    recipe = {"merge_method": "dare_ties", "base_model": first, "models": models, "dtype": "bfloat16"}
    repo = new_repo()
    merge_and_push(recipe, repo, options=OPTIONS, target_token=hub.token)
    return repo


@pytest.fixture(scope="module")
def card(published: str, api: HfApi) -> str:
    return Path(api.hf_hub_download(published, "README.md")).read_text()


def block(card: str, language: str, *, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", card, re.DOTALL)[number]


def run(words: list[str], folder: Path, hub: LocalHub) -> str:
    """Returns what a command prints, with `hubmerge` and `hf` on its path and a Hugging Face home of its own."""
    shim = folder / "hubmerge"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m hubmerge "$@"\n')
    shim.chmod(0o755)
    path = os.pathsep.join((str(folder), str(Path(sys.executable).parent), os.environ["PATH"]))
    variables = {"PATH": path, "HF_HOME": str(folder / "home"), "HF_TOKEN": hub.token, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_usage_snippet_of_a_published_card_writes_text(card: str, hub: LocalHub, tmp_path: Path) -> None:
    snippet = block(card, "python").replace("=256", "=8")
    assert "A large language model is" in run([sys.executable, "-c", snippet], tmp_path, hub)


def test_the_command_of_a_published_card_gives_the_same_bytes(
    card: str, published: str, api: HfApi, hub: LocalHub, tmp_path: Path
) -> None:
    install, *commands = block(card, "sh").splitlines()
    assert re.fullmatch(r"pip install hubmerge==[\d.]+\w*", install)
    again = new_repo()
    commands[-1] = commands[-1].replace(published, again)
    assert commands[-1] == f"hubmerge merge-and-push mergekit_config.yml {again} --seed 7 --shard-size {SHARD_BYTES}"
    run(["sh", "-ec", "\n".join(commands)], tmp_path, hub)
    assert shard_hashes(api, again) == shard_hashes(api, published) != {}


def test_the_written_out_recipe_gives_the_same_bytes(
    card: str, published: str, api: HfApi, hub: LocalHub, tmp_path: Path
) -> None:
    options = MergeOptions(shard_bytes=SHARD_BYTES, source_token=hub.token)
    merge_to_folder(block(card, "yaml", number=1), tmp_path / "again", options=options)
    hashes = {path.name: hash_file(path) for path in (tmp_path / "again").glob("*.safetensors")}
    assert hashes == shard_hashes(api, published)


def test_a_parents_card_is_read_at_the_commit_that_is_merged(api: HfApi, hub: LocalHub, tmp_path: Path) -> None:
    first, second = write_parents(tmp_path, hub.token, owner="local").repos
    old = api.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo="README.md", repo_id=first).oid
    api.upload_file(path_or_fileobj=b"---\nlicense: gpl-3.0\n---\n", path_in_repo="README.md", repo_id=first)
    models = [{"model": f"{first}@{old}", "parameters": {"weight": 1}}, {"model": second, "parameters": {"weight": 1}}]
    recipe = {"merge_method": "linear", "models": models, "dtype": "bfloat16"}
    card = preview_card(recipe, options=MergeOptions(source_token=hub.token, lineage=False))
    assert f"| `{old[:7]}` | weight 1 | mit |" in card


def test_a_card_that_the_hub_refuses_costs_no_weights(hub: LocalHub, parents: Parents) -> None:
    hub.faults.add("POST /api/validate-yaml", status=400, body='{"errors": [{"message": "no such task"}]}')
    hub.requests.clear()
    with pytest.raises(CardError) as caught:
        merge_and_push(parents.recipe(), new_repo(), target_token=hub.token)
    assert str(caught.value) == "the Hub refuses the model card: no such task"
    assert weight_bytes_read(hub) == parents.header_bytes
