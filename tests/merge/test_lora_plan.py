"""What a plan, its card and its lock file say of adapters, and the faults that it finds in them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hubmerge.card.lock import parse_lock
from hubmerge.errors import PlanError, SourceError
from hubmerge.localhub import LocalHub
from hubmerge.merge.explain import parent_role, tensor_groups
from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.memory import BLOCK_BYTES, memory_bytes
from hubmerge.merge.normalise import normalised_recipe
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_to_folder, open_merge, plan_recipe, planned_licence
from hubmerge.merge.plan import Plan
from hubmerge.merge.stream import StreamOptions
from hubmerge.merge.summary import plan_summary
from tests.adapters import change_config, change_tensors, rename_tensors, write_adapter
from tests.checkpoints import push_folder, write_llama
from tests.merge.recipes import whole

Q_PROJ = "base_model.model.model.layers.*.self_attn.q_proj"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("plan") / "llama", seed=1)


@pytest.fixture(scope="module")
def trained(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("plan") / "adapter", llama, r=4, target_modules=["q_proj"])


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    copy = shutil.copytree(trained, tmp_path / "adapter")
    (copy / "README.md").unlink()  # peft names the base by its path there, which no Hub takes
    return copy


def blend(base: Path | str, adapter: Path | str, **top: Any) -> dict[str, Any]:
    """Returns a recipe of a base and half of what an adapter makes of it."""
    adapted = (Path(f"{base}+{adapter}"), {"weight": 0.5})
    return whole("linear", (Path(base), {"weight": 0.5}), adapted, **top)


def problems_of(base: Path, adapter: Path) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        plan_recipe(whole("passthrough", Path(f"{base}+{adapter}")))
    return caught.value.problems


def refs(plan: Plan) -> list[str]:
    return [str(parent.ref) for parent in plan.parents]


def test_base_and_adapter_are_two_parents_and_the_base_is_read_once(llama: Path, adapter: Path) -> None:
    plan = plan_recipe(blend(llama, adapter))
    assert refs(plan) == [str(llama), str(adapter)]
    assert [parent.is_adapter for parent in plan.parents] == [False, True]
    assert [parent.read_bytes for parent in plan.parents] == [parent.stored_bytes for parent in plan.parents]
    assert [path for path, _, _ in plan.parents[1].files] == ["adapter_model.safetensors"]


def test_the_plan_tells_which_tensors_the_adapter_changes(llama: Path, adapter: Path) -> None:
    groups = tensor_groups(plan_recipe(blend(llama, adapter)))
    assert [(group.made_by, group.count) for group in groups] == [("linear", 19), ("linear(base + LoRA)", 2)]


def test_roles_of_base_and_adapter(llama: Path, adapter: Path) -> None:
    plan = plan_recipe(blend(llama, adapter, base_model=llama))
    assert [parent_role(plan.recipe, parent.ref) for parent in plan.parents] == [
        f"base model; weight 0.5 with {adapter}",
        f"LoRA on {llama}: weight 0.5",
    ]


def test_roles_without_a_setting(llama: Path, adapter: Path) -> None:
    plan = plan_recipe(whole("passthrough", Path(f"{llama}+{adapter}")))
    assert [parent_role(plan.recipe, parent.ref) for parent in plan.parents] == [f"with {adapter}", f"LoRA on {llama}"]


def test_the_normalised_recipe_has_the_adapter(llama: Path, adapter: Path) -> None:
    plan = plan_recipe(blend(llama, adapter))
    again = plan_recipe(normalised_recipe(plan))
    assert refs(again) == refs(plan)
    assert fingerprint(again) == fingerprint(plan)


@pytest.mark.parametrize("change", [{"lora_alpha": 9}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 1}}])
def test_what_the_adapter_s_config_decides_shows_in_the_fingerprint(
    llama: Path, adapter: Path, change: dict[str, Any]
) -> None:
    before = fingerprint(plan_recipe(blend(llama, adapter)))
    change_config(adapter, change)
    assert fingerprint(plan_recipe(blend(llama, adapter))) != before


def test_memory_counts_the_factors_that_are_held_whole(llama: Path, adapter: Path) -> None:
    options = StreamOptions(threads=2)
    with open_merge(whole("passthrough", Path(f"{llama}+{adapter}"))) as adapted:
        memory = memory_bytes(adapted.plan, adapted.checkpoints, options)
        assert len(plan_summary(adapted.plan, adapted.checkpoints, options, planned_licence(adapted))["parents"]) == 2
    with open_merge(whole("linear", *[(llama, {"weight": 1})] * 1)) as alone:
        without = memory_bytes(alone.plan, alone.checkpoints, options)
    assert memory - without == 2 * (2 * BLOCK_BYTES + 4 * (4 * 16 + 16 * 4))


def test_every_fault_of_an_adapter_is_listed_at_once(llama: Path, adapter: Path) -> None:
    name = Q_PROJ.replace("*", "0")
    change_tensors(
        adapter,
        {
            f"{name}.lora_B.weight": None,
            f"{Q_PROJ.replace('*', '1')}.lora_A.weight": torch.ones(4, 12),
            **{f"{Q_PROJ.replace('*', str(n))}.lora_magnitude_vector": torch.ones(16) for n in (0, 1)},
        },
    )
    assert problems_of(llama, adapter) == (
        f"{adapter}: {Q_PROJ}.lora_magnitude_vector (2 tensors): hubmerge does not know this kind of adapter tensor",
        f"{adapter}: {Q_PROJ}.lora_A.weight: it has no B beside it",
        f"{adapter}: {Q_PROJ}.lora_A.weight: it is 4x12 and 16x4, which makes no delta of 16x16",
    )


def test_an_adapter_of_another_model_is_a_problem(llama: Path, adapter: Path) -> None:
    rename_tensors(adapter, "self_attn.q_proj", "attention.query")
    name = "base_model.model.model.layers.*.attention.query"
    assert problems_of(llama, adapter) == tuple(
        f"{adapter}: {name}.lora_{factor}.weight (2 tensors): it fits no tensor of {llama}" for factor in "AB"
    )


@pytest.fixture(scope="module")
def token(hub: LocalHub) -> str:
    return hub.create_user("lora")


def test_a_merge_of_repos_pins_both_and_says_so(
    hub: LocalHub, token: str, llama: Path, adapter: Path, tmp_path: Path
) -> None:
    change_config(adapter, {"base_model_name_or_path": "org/another"})
    (adapter / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    (llama / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    shas = [push_folder(token, "lora/base", llama), push_folder(token, "lora/adapter", adapter)]
    hub.requests.clear()
    merge_to_folder(blend("lora/base", "lora/adapter"), tmp_path / "out", options=MergeOptions(lineage=False))
    assert len(hub.requests.matching(r"^GET /api/models/lora/base/revision/")) == 1
    lock = parse_lock((tmp_path / "out/hubmerge.lock.json").read_text())
    assert [(parent.repo_id, parent.sha) for parent in lock.parents] == [
        ("lora/base", shas[0]),
        ("lora/adapter", shas[1]),
    ]
    card = (tmp_path / "out/README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["base_model"] == ["lora/base", "lora/adapter"]
    assert metadata["license"] == "cc-by-nc-4.0"
    assert f"lora/base@{shas[0]}+lora/adapter@{shas[1]}" in card
    note = f"lora/adapter@{shas[1][:7]}: it was trained on org/another, not on lora/base"
    assert note in plan_recipe(blend("lora/base", "lora/adapter")).notes


def test_a_private_adapter_needs_a_token_that_may_read_it(token: str, llama: Path, adapter: Path) -> None:
    push_folder(token, "lora/private", adapter, private=True)
    with pytest.raises(SourceError) as caught:
        plan_recipe(blend(llama, "lora/private"), MergeOptions(source_token=False))
    assert str(caught.value).startswith("there is no model lora/private on the Hub, or it is private")
    plan = plan_recipe(blend(llama, "lora/private"), MergeOptions(source_token=token))
    assert refs(plan) == [str(llama), "lora/private"]
