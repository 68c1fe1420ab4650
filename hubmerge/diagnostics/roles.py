"""What a tensor does in its layer, told by the words that architectures have in common."""

from __future__ import annotations

import re

from hubmerge.merge.layers import LayerStack, layer_index, part_in_layer, role

ROLES = (
    *("q", "k", "v", "qkv", "o"),
    *("router", "gate", "up", "gate_up", "down"),
    *("norm", "other"),
    *("embed", "head"),
)
"""In the order in which they are shown; the last two are no layer's."""

OUTSIDE = ("embed", "head")

_WORDS = (
    ("norm", r"norm|(^|[._])ln_?\d*([._]|$)"),
    ("qkv", r"qkv|c_attn|query_key_value|wqkv|in_proj"),
    ("q", r"(^|[._])(q_(a_|b_)?proj|query|wq|q_lin|q)([._]|$)"),
    ("k", r"(^|[._])(k_proj|key|wk|k_lin|k|kv_(a|b)_proj\w*)([._]|$)"),
    ("v", r"(^|[._])(v_proj|value|wv|v_lin|v)([._]|$)"),
    ("gate_up", r"gate_up"),
    ("router", r"router|(^|\.)gate\.(weight|bias|wg)|shared_expert_gate"),
    ("gate", r"gate_proj|(^|[._])w1([._]|$)"),
    ("o", r"o_proj|out_proj|(^|[._])(wo|out_lin)([._]|$)|attn\.c_proj|att\w*\.(output\.)?dense"),
    ("down", r"down_proj|(^|[._])w2([._]|$)|mlp\.c_proj|4h_to_h|fc_out|(^|[._])(fc2|lin2)([._]|$)|(^|\.)output\.dense"),
    ("up", r"up_proj|(^|[._])w3([._]|$)|c_fc|h_to_4h|fc_in|(^|[._])(fc1|lin1)([._]|$)|intermediate\.dense"),
)
"""Role -> the words; the first that matches counts."""

_PATTERNS = tuple((name, re.compile(words, re.IGNORECASE)) for name, words in _WORDS)


def role_of(name: str, stack: LayerStack | None) -> str:
    """Returns one of ROLES for a tensor of the result."""
    if layer_index(name, stack) is None:
        outer = role(name, stack)
        return outer if outer in ("embed", "head", "norm") else "other"
    part = part_in_layer(name, stack)
    return next((role for role, pattern in _PATTERNS if pattern.search(part)), "other")
