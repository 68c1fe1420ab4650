from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hubmerge.card.facts import MergeFacts
from hubmerge.merge.ancestry import Ancestry
from hubmerge.merge.describe import Target, merge_facts, parents_of
from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.licensing import decide_licence
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_to_folder, open_merge, plan_recipe
from hubmerge.merge.side_files import side_files
from tests.checkpoints import write_tensors
from tests.merge.recipes import whole

Llamas = tuple[Path, Path, Path]
REPO = Target("org/name", is_repo=True)


def facts_of(recipe: dict[str, Any], *, target: Target = REPO) -> MergeFacts:
    with open_merge(recipe) as merge:
        parents = parents_of(merge.plan, merge.checkpoints)
        return merge_facts(
            merge.plan,
            parents,
            decide_licence(parents, Ancestry(), repo_id=target.repo_id),
            target=target,
            shards=[],
            side_files=side_files(merge.plan.tokenizer, merge.plan.donor, merge.checkpoints),
        )


def configured(folder: Path, **config: Any) -> Path:
    return write_tensors(folder, {"weight": torch.ones(2)}, config)


def test_the_recipe_is_kept_as_it_was_written(tmp_path: Path, llamas: Llamas) -> None:
    text = f"# a comment\nmerge_method: passthrough\nmodels:\n  - model: {llamas[0]}\n"
    (tmp_path / "recipe.yml").write_text(text)
    merge_to_folder(tmp_path / "recipe.yml", tmp_path / "out")
    assert (tmp_path / "out" / "mergekit_config.yml").read_text() == text
    assert text in (tmp_path / "out" / "README.md").read_text()


def test_the_lock_file_has_the_hashes_of_the_files_and_the_plans_fingerprint(tmp_path: Path, llamas: Llamas) -> None:
    options = MergeOptions(shard_bytes=9_000)
    recipe = whole("linear", *[(model, {"weight": 1}) for model in llamas], seed=4)
    merge_to_folder(recipe, tmp_path / "out", options=options)
    lock = json.loads((tmp_path / "out" / "hubmerge.lock.json").read_text())
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert [(output["path"], output["sha256"]) for output in lock["outputs"]] == [
        (path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files
    ]
    assert lock["fingerprint"] == fingerprint(plan_recipe(recipe, options))
    assert (lock["seed"], len(lock["parents"])) == (4, 3)


def test_the_card_tells_what_the_result_is(llamas: Llamas) -> None:
    recipe = whole("slerp", llamas[0], llamas[1], base_model=llamas[1], parameters={"t": 0.5}, dtype="float16")
    facts = facts_of(recipe)
    assert (facts.title, facts.repo_id, facts.dtype) == ("name", "org/name", "float16")
    assert (facts.architecture, facts.pipeline_tag, facts.context_length) == (
        "LlamaForCausalLM",
        "text-generation",
        128,
    )
    assert (facts.tokenizer_from, facts.chat_template) == (llamas[1].name, False)
    assert [(parent.role, parent.is_base) for parent in facts.parents] == [("base model", True), ("input", False)]
    assert yaml.safe_load(facts.normalised_recipe)["merge_method"] == "slerp"


def test_a_folder_is_called_by_its_name_also_where_that_is_a_dot(
    tmp_path: Path, llamas: Llamas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert facts_of(whole("passthrough", llamas[0]), target=Target(".", is_repo=False)).title == tmp_path.name


@pytest.mark.parametrize(
    ("config", "tag"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "text-generation"),
        ({"architectures": ["BertForMaskedLM"]}, "fill-mask"),
        ({"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}}, "image-text-to-text"),
        ({"architectures": ["T5ForConditionalGeneration"]}, None),
        ({"architectures": ["SomethingModel"]}, None),
        ({}, None),
    ],
)
def test_the_task_follows_from_the_architecture(tmp_path: Path, config: dict[str, Any], tag: str | None) -> None:
    assert facts_of(whole("passthrough", configured(tmp_path / "model", **config))).pipeline_tag == tag


def test_the_context_length_may_stand_in_the_text_config(tmp_path: Path) -> None:
    model = configured(tmp_path / "model", text_config={"max_position_embeddings": 77})
    assert facts_of(whole("passthrough", model)).context_length == 77


def test_a_folder_whose_name_is_not_text_can_be_merged_to(tmp_path: Path, llamas: Llamas) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    merge_to_folder(whole("passthrough", llamas[0]), folder)
    assert "# caf\ufffd\n" in (folder / "README.md").read_text()
