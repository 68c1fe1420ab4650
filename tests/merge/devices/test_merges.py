"""Whole merges on cards: the same files, from two cards and one queue; what is recorded of the device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hubmerge.card.lock import LOCK_FILE, parse_lock
from hubmerge.merge.fingerprint import fingerprint, shard_contents
from hubmerge.merge.memory import CARD_HOST_BYTES, memory_bytes
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_to_folder, open_merge, plan_recipe
from hubmerge.merge.plan import Plan
from hubmerge.merge.plan_note import plan_note
from hubmerge.merge.stream import StreamOptions
from hubmerge.verify.cards import card_rounding
from hubmerge.verify.foreign import Rounding
from hubmerge.verify.report import verdict_sentence
from tests.adapters import write_adapter
from tests.merge.devices.cards import HostCard
from tests.merge.merging import hashes
from tests.merge.recipes import whole
from tests.verify.merges import K_PROJ, differing, edit_lock, flip_bit, forge_checksums, full_report

Llamas = tuple[Path, Path, Path]


def dare_ties(llamas: Llamas, **top: Any) -> dict[str, Any]:
    tuned = [(model, {"weight": 0.5, "density": 0.5}) for model in llamas[1:]]
    return whole("dare_ties", *tuned, base_model=llamas[0], **top)


def options(*cards: HostCard, **changes: Any) -> MergeOptions:
    return MergeOptions(shard_bytes=9_000, stream=StreamOptions(threads=4, cards=cards), **changes)


@pytest.mark.parametrize("kind", ["dare_ties", "slerp", "adapted", "stacked"])
def test_two_cards_and_one_queue_write_the_hosts_files(llamas: Llamas, tmp_path: Path, kind: str) -> None:
    recipe = recipe_of(kind, llamas, tmp_path)
    looks = kind == "dare_ties"
    merge_to_folder(recipe, tmp_path / "host", options=options(diagnostics=looks))
    cards = HostCard(), HostCard()
    merge_to_folder(recipe, tmp_path / "cards", options=options(*cards, diagnostics=looks))
    assert hashes(tmp_path / "cards", "*.safetensors") == hashes(tmp_path / "host", "*.safetensors")
    assert hashes(tmp_path / "cards", "diag*") == hashes(tmp_path / "host", "diag*")
    assert all(card.used_by and card.sent_bytes for card in cards)


def recipe_of(kind: str, llamas: Llamas, folder: Path) -> dict[str, Any]:
    if kind == "dare_ties":
        return dare_ties(llamas)
    if kind == "slerp":
        return whole("slerp", *llamas[:2], base_model=llamas[0], parameters={"t": 0.3}, dtype="float32")
    if kind == "adapted":
        adapter = write_adapter(folder / "adapter", llamas[1], r=4, target_modules="all-linear")
        return whole("linear", (llamas[0], {"weight": 1}), (Path(f"{llamas[1]}+{adapter}"), {"weight": 1}))
    slices = [{"sources": [{"model": str(model), "layer_range": [0, 2]}]} for model in llamas]
    return {"merge_method": "passthrough", "slices": slices, "parameters": {"scale": 0.5}}


def on_cuda(plan: Plan) -> Plan:
    return replace(plan, device="cuda")


def test_what_a_card_made_is_another_merge(llamas: Llamas) -> None:
    plan = plan_recipe(dare_ties(llamas))
    card = on_cuda(plan)
    assert fingerprint(plan) != fingerprint(card)
    assert not set(shard_contents(plan).values()) & set(shard_contents(card).values())
    assert plan_note(plan).differences(plan_note(card)) == ["device: was cpu, is cuda"]


def test_the_lock_file_tells_the_device(llamas: Llamas, tmp_path: Path) -> None:
    merge_to_folder(dare_ties(llamas), tmp_path / "out", options=options(diagnostics=False))
    text = (tmp_path / "out" / LOCK_FILE).read_text()
    assert json.loads(text)["options"]["device"] == "cpu"
    assert options(device="cuda:1").recorded.device == "cuda"
    older = json.loads(text)
    del older["options"]["device"]
    assert parse_lock(json.dumps(older)) == parse_lock(text)


def test_memory_counts_what_a_card_takes_of_the_host(llamas: Llamas) -> None:
    with open_merge(dare_ties(llamas)) as merge:
        plain = StreamOptions(threads=2)
        with_card = replace(plain, cards=(HostCard(), HostCard()))
        needs = [memory_bytes(merge.plan, merge.checkpoints, each) for each in (plain, with_card)]
    assert needs[1] - needs[0] == 2 * CARD_HOST_BYTES


@pytest.mark.parametrize(
    ("method", "dtype", "expected"),
    [
        ("dare_ties", "bfloat16", Rounding(1, share=0.001)),
        ("dare_linear", "bfloat16", Rounding(1)),
        ("dare_linear", "float32", Rounding(8)),
    ],
)
def test_the_tolerance_of_a_card_follows_from_dtype_and_method(
    llamas: Llamas, method: str, dtype: str, expected: Rounding
) -> None:
    plan = plan_recipe({**dare_ties(llamas, dtype=dtype), "merge_method": method})
    assert card_rounding(on_cuda(plan)) == expected


def test_a_merge_from_a_card_is_verified_within_the_tolerance(llamas: Llamas, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    merge_to_folder(dare_ties(llamas), folder, options=MergeOptions(lineage=False, diagnostics=False))
    assert "bit for bit" in verdict_sentence(full_report(folder))
    edit_lock(folder, lambda lock: lock["options"].update(device="cuda"))
    report = full_report(folder)
    assert "within 1 ulp" in verdict_sentence(report)
    sentence = "It was computed on cuda, which rounds a little differently; here the processor computes."
    assert sentence in report.assumptions


@pytest.mark.parametrize(("bit", "found"), [(0, []), (9, ["weights"])], ids=["last place", "exponent"])
def test_a_step_of_the_last_place_is_a_cards_rounding_and_more_is_not(
    llamas: Llamas, tmp_path: Path, bit: int, found: list[str]
) -> None:
    folder = tmp_path / "out"
    merge_to_folder(dare_ties(llamas), folder, options=MergeOptions(lineage=False, diagnostics=False))
    edit_lock(folder, lambda lock: lock["options"].update(device="cuda"))
    flip_bit(folder, K_PROJ, bit=bit)
    forge_checksums(folder)
    assert differing(full_report(folder)) == found
