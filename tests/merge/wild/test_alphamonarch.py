"""The example of a deep tree: fifty models, seventeen merges, one pass."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hubmerge.errors import RecipeError
from hubmerge.merge import nodes
from hubmerge.merge.pipeline import merge_to_folder, plan_recipe
from hubmerge.merge.plan import model_refs
from hubmerge.merge.recipe import load_recipe
from tests.checkpoints import read_tensors
from tests.merge.merging import WEIGHTS_ONLY, hashes
from tests.merge.wild.stand_ins import StandIns

EXAMPLE = (Path(__file__).parents[3] / "examples" / "alphamonarch.yml").read_text()
SMALL = EXAMPLE.replace("[0, 32]", "[0, 1]")
"""The same tree over models of one layer."""


def test_the_example_has_fifty_models_and_no_warnings() -> None:
    recipe = load_recipe(EXAMPLE)
    assert len(model_refs(recipe)) == 50
    assert recipe.name == "AlphaMonarch-7B"
    assert recipe.warnings == ()


def test_one_pass_gives_the_bits_of_seventeen_steps(stand_ins: StandIns, tmp_path: Path) -> None:
    replaced, stand_in_of = stand_ins.of(load_recipe(SMALL))
    folders = {str(ref): stand_in.path for ref, stand_in in stand_in_of.items()}
    for document in yaml.safe_load_all(SMALL):
        folder = tmp_path / "steps" / document["name"]
        merge_to_folder(_over(document, folders), folder, options=WEIGHTS_ONLY)
        folders[document["name"]] = str(folder)
    merge_to_folder(replaced, tmp_path / "tree", options=WEIGHTS_ONLY)
    steps = tmp_path / "steps" / "AlphaMonarch-7B"
    assert hashes(tmp_path / "tree", "*.safetensors") == hashes(steps, "*.safetensors")
    assert list(read_tensors(steps)) == list(read_tensors(tmp_path / "tree"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["steps", "tree"]


def test_only_the_fifty_models_are_read(stand_ins: StandIns) -> None:
    replaced, stand_in_of = stand_ins.of(load_recipe(SMALL))
    plan = plan_recipe(replaced)
    assert {parent.ref for parent in plan.parents} == set(stand_in_of.values())


def test_one_branch_is_held_at_a_time(stand_ins: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, most = _Counted(monkeypatch), 6
    replaced, _ = stand_ins.of(load_recipe(SMALL))
    merge_to_folder(replaced, tmp_path / "tree")
    assert held.made > 20
    assert held.most_alive <= most


def test_a_circle_and_a_wrong_name_show_the_way() -> None:
    circle = EXAMPLE.replace("{model: janai-hq/trinity-v1, layer_range", "{model: Beagle14-7B, layer_range")
    way = "Mistral-7B-Merge-14-v0.1 → Beagle14-7B → distilabeled-Marcoro14-7B-slerp → Marcoro14-7B-slerp"
    with pytest.raises(RecipeError, match=f"refer to each other in a circle: {way} → Mistral-7B-Merge-14-v0.1"):
        load_recipe(circle)
    with pytest.raises(RecipeError, match=r"no document is called BeagSaki-7B; did you mean BeagSake-7B\?"):
        load_recipe(EXAMPLE.replace("{model: BeagSake-7B,", "{model: BeagSaki-7B,"))


class _Counted:
    """Counts merges within merges that are held whole, over one thread's tensors or all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        self.most_alive = 0
        self._alive: dict[int, set[int]] = {}
        counted = self
        whole = nodes.Held._whole

        def count(node: Any) -> torch.Tensor:
            is_new = node._values is None
            values = whole(node)
            if is_new:
                counted._born(node)
            return values

        monkeypatch.setattr(nodes.Held, "_whole", count)

    def _born(self, node: Any) -> None:
        thread = threading.get_ident()
        alive = self._alive.setdefault(thread, set())
        alive.add(id(node))
        weakref.finalize(node, alive.discard, id(node))
        self.made += 1
        self.most_alive = max(self.most_alive, len(alive))


def _over(value: Any, folders: dict[str, str]) -> Any:
    """Returns a document with folders in the place of names, and without its own."""
    if isinstance(value, dict):
        return {key: _over(entry, folders) for key, entry in value.items() if key != "name"}
    if isinstance(value, list):
        return [_over(entry, folders) for entry in value]
    return folders.get(value, value) if isinstance(value, str) else value
