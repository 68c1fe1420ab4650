"""The libraries that people load models and data with, unmodified."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, HfFileSystem
from transformers import AutoModelForCausalLM, AutoTokenizer

from hubmerge.localhub import LocalHub
from tests.checkpoints import write_llama
from tests.localhub.conftest import send


def python(code: str, folder: Path, token: str) -> str:
    """Returns what the code prints."""
    variables = os.environ | {"HF_HOME": str(folder / "home"), "HF_TOKEN": token}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def model(api: HfApi, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_llama(tmp_path_factory.mktemp("llama"), seed=1, max_shard_size="10KB")
    api.create_repo("ann/llama", private=True)
    api.upload_folder(repo_id="ann/llama", folder_path=folder)
    return "ann/llama"


def test_transformers_loads_a_private_model_with_its_tokenizer(model: str, token: str, tmp_path: Path) -> None:
    home = {"token": token, "cache_dir": tmp_path / "home"}
    assert AutoModelForCausalLM.from_pretrained(model, **home).num_parameters() > 0
    assert AutoTokenizer.from_pretrained(model, **home)("t5 t6")["input_ids"] == [5, 6]


def test_datasets_loads_what_was_pushed(api: HfApi, token: str, tmp_path: Path) -> None:
    code = """
from datasets import Dataset, load_dataset
Dataset.from_dict({"x": [1, 2, 3]}).push_to_hub("ann/numbers", split="train")
print(load_dataset("ann/numbers", split="train")["x"][:])
"""
    assert python(code, tmp_path, token).strip().splitlines()[-1] == "[1, 2, 3]"
    assert "README.md" in api.list_repo_files("ann/numbers", repo_type="dataset")


def test_the_hf_command_works(repo: str, token: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    variables = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": token}
    command = Path(sys.executable).with_name("hf")
    for words in (["upload", repo, "note.txt"], ["download", repo, "note.txt", "--local-dir", "got"]):
        subprocess.run([command, *words], env=variables, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "got" / "note.txt").read_text() == "hello"


def test_the_file_system_reads_ranges(model: str, token: str) -> None:
    files = HfFileSystem(token=token)
    names = files.ls(model, detail=False)
    shard = next(name for name in names if name.endswith(".safetensors"))
    with files.open(shard, "rb", block_size=1024) as file:
        length = int.from_bytes(file.read(8), "little")
        assert "__metadata__" in json.loads(file.read(length))


def test_the_headers_of_all_shards_come_in_one_request(api: HfApi, hub: LocalHub, model: str, token: str) -> None:
    info = api.model_info(model)
    path = f"/api/models/{model}/safetensors-metadata/model.safetensors.index.json"
    metadata = json.loads(send(hub, "GET", path, token=token).body)
    parsed = api.get_safetensors_metadata(model)
    assert metadata["index"]["metadata"] == parsed.metadata
    assert {name: shard for shard, header in metadata["headers"].items() for name in header if name[0] != "_"} == (
        parsed.weight_map
    )
    assert info.safetensors.parameters == parsed.parameter_count
    assert (info.library_name, info.pipeline_tag) == ("transformers", "text-generation")
