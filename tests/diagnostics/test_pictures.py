from __future__ import annotations

import sys

import pytest

from hubmerge.diagnostics.diagnostics import Diagnostics
from hubmerge.diagnostics.panels import Panel, Scale, panels
from hubmerge.diagnostics.report import NO_MATPLOTLIB, basis, report_on
from hubmerge.diagnostics.roles import role_of
from hubmerge.merge.layers import LayerStack
from tests.diagnostics.made_up import Models, diagnosed, noise

BASE = [noise(layer) for layer in range(3)]


def models(count: int) -> Models:
    tuned = {f"m{n}": [b + noise(n * 10 + layer + 50, 0.01) for layer, b in enumerate(BASE)] for n in range(count)}
    return {"base": BASE, **tuned}


def titles(found: tuple[Panel, ...]) -> list[str]:
    return [panel.title for panel in found]


def test_two_task_vectors_have_a_panel_each() -> None:
    found = panels(diagnosed(models(2), has_base=True, kept=0.5))
    assert titles(found) == [
        *("Task vector of m0", "Task vector of m1", "m0 and m1"),
        *("Sign conflict beyond chance", "Kept of the task vectors"),
    ]
    assert found[0].limits == found[1].limits


def test_many_task_vectors_share_panels() -> None:
    found = panels(diagnosed(models(14), has_base=True))
    assert titles(found) == ["Task vectors, all roles", "Direction, mean of 91 pairs", "Sign conflict beyond chance"]
    assert found[0].rows == tuple(f"m{n}" for n in range(14))


def test_without_a_base_models_are_compared_with_the_first() -> None:
    found = panels(diagnosed({"a": BASE, "b": models(1)["m0"]}, has_base=False))
    assert titles(found) == ["b from a", "a and b"]


def test_both_directions_have_the_same_reach() -> None:
    for panel in panels(diagnosed(models(2), has_base=True)):
        low, high = panel.limits
        assert panel.scale is Scale.LEVEL or low == -high


def test_a_picture_is_small_and_the_same_every_time() -> None:
    found = diagnosed(models(3), has_base=True)
    one, other = (report_on(found, say=lambda _: None).files["diagnostics.png"] for _ in range(2))
    assert one == other
    assert len(one) < 150_000


def test_the_basis_is_right_for_one_tensor_and_for_none() -> None:
    alone = Diagnostics("linear", 1, (), 2, 1, 1, 100, 100)
    assert basis(alone) == "From all values of 1 merged tensor; 1 tensor is not merged."
    none = Diagnostics("passthrough", 1, (), 2, 0, 0, 0, 0)
    assert basis(none) == "No tensor is made from several models, so that nothing was compared."


def test_without_matplotlib_there_is_a_hint_and_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said: list[str] = []
    report = report_on(diagnosed(models(1), has_base=True), say=said.append)
    assert said == [NO_MATPLOTLIB]
    assert list(report.files) == ["diagnostics.json"]
    assert report.facts is not None
    assert not report.facts.has_picture


@pytest.mark.parametrize(
    ("part", "role"),
    [
        ("self_attn.q_proj.weight", "q"),
        ("self_attn.k_proj.bias", "k"),
        ("self_attn.v_proj.weight", "v"),
        ("self_attn.o_proj.weight", "o"),
        ("self_attn.qkv_proj.weight", "qkv"),
        ("self_attn.q_norm.weight", "norm"),
        ("mlp.gate_proj.weight", "gate"),
        ("mlp.up_proj.weight", "up"),
        ("mlp.gate_up_proj.weight", "gate_up"),
        ("mlp.down_proj.weight", "down"),
        ("mlp.gate.weight", "router"),
        ("block_sparse_moe.gate.weight", "router"),
        ("block_sparse_moe.experts.3.w1.weight", "gate"),
        ("block_sparse_moe.experts.3.w2.weight", "down"),
        ("attn.c_attn.weight", "qkv"),
        ("attn.c_proj.weight", "o"),
        ("mlp.c_proj.weight", "down"),
        ("mlp.c_fc.weight", "up"),
        ("attention.self.query.weight", "q"),
        ("attention.output.dense.weight", "o"),
        ("intermediate.dense.weight", "up"),
        ("output.dense.weight", "down"),
        ("ln_1.weight", "norm"),
        ("mixer.A_log", "other"),
    ],
)
def test_roles_are_told_by_words(part: str, role: str) -> None:
    assert role_of(f"model.layers.0.{part}", LayerStack("model.layers.", 2)) == role


def test_roles_outside_the_layers() -> None:
    stack = LayerStack("model.layers.", 2)
    names = ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.mask")
    assert [role_of(name, stack) for name in names] == ["embed", "head", "norm", "other"]
