"""`hubmerge extract-lora` on repos of a Hub and on folders, and the card that it writes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from hubmerge.cli import main
from hubmerge.localhub import LocalHub
from tests.checkpoints import push_folder, write_llama
from tests.extract.models import config_of, with_hubmerge, write_finetuned


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_llama(tmp_path_factory.mktemp("command") / "base", seed=1, dtype=torch.float32)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


@pytest.fixture(scope="module")
def finetuned(base: Path) -> Path:
    return write_finetuned(base.parent / "finetuned", base, rank=3)


def run(*words: object) -> Result:
    result = CliRunner().invoke(main, ["extract-lora", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_repos_are_read_by_range_and_named_at_their_commits(
    hub: LocalHub, base: Path, finetuned: Path, tmp_path: Path
) -> None:
    token = hub.create_user("extract")
    shas = [push_folder(token, f"extract/{folder.name}", folder) for folder in (finetuned, base)]
    hub.requests.clear()
    result = run("extract/finetuned", "extract/base", tmp_path / "lora", "--rank", 3, "--threads", 2)
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path}/lora\n"
    config = config_of(tmp_path / "lora")
    assert (config["base_model_name_or_path"], config["revision"]) == ("extract/base", shas[1])
    card = (tmp_path / "lora/README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata == {
        "base_model": "extract/base",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "peft", "hubmerge"],
        "license": "apache-2.0",
    }
    assert "| self_attn.q_proj | 2 | LoRA, rank 3 | 100.00 % |" in card
    command = next(line for line in card.splitlines() if line.startswith("hubmerge extract-lora"))
    assert command == (
        f"hubmerge extract-lora extract/finetuned@{shas[0]} extract/base@{shas[1]} OUT_DIR "
        "--rank 3 --dtype float32 --seed 0"
    )
    again = shlex.split(command.replace("OUT_DIR", str(tmp_path / "again")))[2:]
    assert run(*again).exit_code == 0
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("lora", "again")]
    assert weights[0] == weights[1]


def test_two_repos_with_the_same_files_are_told_apart_from_none_by_their_hashes(
    hub: LocalHub, base: Path, tmp_path: Path
) -> None:
    token = hub.create_user("copies")
    shas = [push_folder(token, f"copies/{name}", base)[:7] for name in ("one", "two")]
    result = run("copies/one", "copies/two", tmp_path / "lora")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: copies/one@{shas[0]} and copies/two@{shas[1]} have the same weights; there is nothing to extract\n"
    )


def test_the_report_is_on_stderr_and_the_folder_on_stdout(base: Path, finetuned: Path, tmp_path: Path) -> None:
    result = run(finetuned, base, tmp_path / "lora", "--energy", 0.9, "--save-norms")
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path}/lora\n"
    assert f"Taking the difference of {finetuned} and {base}: " in result.stderr
    assert "relative error 0." in result.stderr
    assert "self_attn.q_proj" in result.stderr
    assert run(finetuned, base, tmp_path / "quiet", "-q").stderr == ""


def test_the_report_as_json(base: Path, finetuned: Path, tmp_path: Path) -> None:
    result = run(finetuned, base, tmp_path / "lora", "--rank", 3, "--json", "--quiet")
    report = json.loads(result.stdout)
    assert report["folder"] == str(tmp_path / "lora")
    assert report["relative_error"] < 1e-5
    group = next(group for group in report["groups"] if group["group"] == "self_attn.q_proj")
    assert (group["how"], group["count"], group["ranks"]) == ("LoRA", 2, [3, 3])
    assert group["energy_kept"] == pytest.approx(1)


def test_what_extract_writes_merge_reads(base: Path, finetuned: Path, tmp_path: Path) -> None:
    run(finetuned, base, tmp_path / "lora", "--rank", 3, "--dtype", "bfloat16")
    assert with_hubmerge(base, tmp_path / "lora", tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rank", 8, "--energy", 0.9], "--rank and --energy exclude each other; --max-rank bounds --energy"),
        (["--max-rank", 8], "--max-rank goes with --energy"),
        (["--energy", 1.5], "Invalid value for '--energy': 1.5 is not in the range 0<x<=1."),
        (["--rank", 0], "Invalid value for '--rank': 0 is not in the range x>=1."),
    ],
)
def test_wrong_usage(base: Path, finetuned: Path, tmp_path: Path, words: list[object], message: str) -> None:
    result = run(finetuned, base, tmp_path / "lora", *words)
    assert result.exit_code == 2
    assert f"Error: {message}\n" in result.stderr


def test_settings_that_an_adapter_cannot_carry_are_noted(base: Path, tmp_path: Path) -> None:
    other = write_finetuned(tmp_path / "other", base, rank=3)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5, "use_cache": False}))
    result = run(other, base, tmp_path / "lora")
    assert f"! config.json of {other} differs in rms_norm_eps; an adapter carries weights only\n" in result.stderr


def test_a_memory_budget_changes_no_byte_or_is_said_to_be_too_small(
    base: Path, finetuned: Path, tmp_path: Path
) -> None:
    for name, budget in (("free", "8GB"), ("bounded", "500MB")):
        assert run(finetuned, base, tmp_path / name, "--threads", 2, "--memory-budget", budget).exit_code == 0
    free, bounded = (tmp_path / name / "adapter_model.safetensors" for name in ("free", "bounded"))
    assert free.read_bytes() == bounded.read_bytes()
    refused = run(finetuned, base, tmp_path / "none", "--threads", 2, "--memory-budget", "300MB")
    assert refused.exit_code == 1
    assert re.match(r"Error: this adapter needs \d+ MB of memory at least, and the budget is 300 MB\n", refused.stderr)
    assert not (tmp_path / "none").exists()
