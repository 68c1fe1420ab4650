"""A plan in words: which tensors are made how, and what each parent is to the merge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import shorten

from hubmerge.merge.expr import AddLora, Dithered, Expr, Gate, Load, Merge, Random, RemapRows, Same
from hubmerge.merge.layers import name_pattern
from hubmerge.merge.methods import get_method
from hubmerge.merge.methods.method import Value
from hubmerge.merge.plan import OutputTensor, Plan
from hubmerge.merge.recipe import PROMPTED_MODES, Expert, Mixture, Recipe, SliceSource, Source, TokenizerChoice
from hubmerge.merge.settings import Constant, Filtered, Gradient, Setting
from hubmerge.merge.token_rules import tokenizer_sources
from hubmerge.weights.reference import ModelRef

SHOWN_VALUES = 5
SHOWN_PROMPTS = 3
SHOWN_CHARACTERS = 60
"""Of a prompt, which may be pages."""
SHOWN_DEPTH = 6
"""Merges within each other whose methods are told: where branches meet again, each level says the one below twice."""


@dataclass(frozen=True)
class MethodWords:
    """A method as people are told of it; see `Method`."""

    title: str
    paper: str | None
    summary: str


MIXTURE_WORDS = MethodWords(
    title="Mixture of experts",
    paper="https://arxiv.org/abs/2212.05055",
    summary="The feed-forward layers of dense models become the experts of one model, between which a router chooses "
    "for each token; everything else is the base model's.",
)


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that are made in the same way.

    Attributes:
        names: Their names, layer numbers replaced by `*`.
        count: How many tensors these names stand for.
        made_by: A method with what it is applied to, `base + LoRA`, `copy`, or `identical in all` for tensors that are
            not merged.
        parameters: Their settings, with the values over the layers where they change.
    """

    names: tuple[str, ...]
    count: int
    made_by: str
    parameters: str


def tensor_groups(plan: Plan) -> tuple[TensorGroup, ...]:
    """Returns every output tensor in exactly one group, in the order in which they are made."""
    by_pattern: dict[tuple[str, str], list[OutputTensor]] = {}
    for tensor in plan.tensors:
        by_pattern.setdefault((name_pattern(tensor.info.name), _made_by(tensor.expr)), []).append(tensor)
    groups: dict[tuple[str, str], TensorGroup] = {}
    for (pattern, made_by), tensors in by_pattern.items():
        parameters = _parameters([tensor.expr for tensor in tensors])
        known = groups.get((made_by, parameters))
        names = (*known.names, pattern) if known else (pattern,)
        count = len(tensors) + (known.count if known else 0)
        groups[made_by, parameters] = TensorGroup(names, count, made_by, parameters)
    return tuple(groups.values())


def method_words(recipe: Recipe) -> MethodWords:
    """Returns title, paper and summary of what a recipe does."""
    if recipe.mixture is not None:
        return MIXTURE_WORDS
    method = get_method(recipe.method)
    return MethodWords(method.title, method.paper, method.summary)


def modules_text(plan: Plan) -> str:
    """Returns what becomes of each module: "text_decoder (32 layers, 291 tensors) by slerp · vision_tower ..."."""
    return " · ".join(
        f"{made.module.name} ({len(made.layers)} layers, {made.tensors} tensors) "
        + ("carried over" if made.method is None else f"by {made.method}")
        for made in plan.modules
    )


def parent_role(recipe: Recipe, ref: ModelRef) -> str:
    """Returns what a model is to the merge, as a phrase: "base model", "weight 0.36, density 0.65", "layers 0-24".

    Of an adapter that is "LoRA on a/b: weight 0.36".
    """
    roles = (_role_of_part(ref, model, role) for model, role in _mentions(recipe, set()))
    return "; ".join(dict.fromkeys(filter(None, roles))) or "input"


def setting_text(setting: Setting) -> str:
    """Returns a setting as a recipe would say it in one line."""
    match setting:
        case Constant(value):
            return _number(value)
        case Gradient(values):
            return f"[{', '.join(map(_number, values))}]"
        case Filtered(cases):
            return ", ".join(f"{case.substring or 'else'}: {setting_text(case.setting)}" for case in cases)


def _made_by(expr: Expr) -> str:
    match expr:
        case Load():
            return "copy"
        case Same():
            return "identical in all"
        case RemapRows():
            return f"{' and '.join(dict.fromkeys(map(_made_by, expr.inputs)))} by token"
        case Gate():
            return f"router from prompts ({expr.routing.mode})"
        case Dithered(value=value):
            return f"{_made_by(value)}, rounded at random"
        case Merge() | AddLora() | Random():
            return _tree(expr)


def _tree(expr: Merge | AddLora | Random, depth: int = 1) -> str:
    """Returns the methods of a merge and of those in it; `by token` where rows of the inputs are in another order."""
    if isinstance(expr, AddLora):
        within = _computed(expr.weight)
        return f"{_tree(within[0], depth)} + LoRA" if within else "base + LoRA"
    if isinstance(expr, Random):
        return f"random {expr.kind}"
    by_token = any(isinstance(operand, RemapRows) for operand in expr.inputs)
    parts = [part for operand in expr.inputs for part in _computed(operand)]
    nested = dict.fromkeys(_tree(part, depth + 1) if depth < SHOWN_DEPTH else "…" for part in parts)
    method = f"{expr.method} by token" if by_token else expr.method
    return f"{method}({', '.join(nested)})" if nested else method


def _computed(operand: Expr) -> tuple[Merge | AddLora | Random, ...]:
    """Returns what is computed in an operand before its rows are put in order."""
    if isinstance(operand, RemapRows):
        return tuple(part for inner in operand.inputs for part in _computed(inner))
    return (operand,) if isinstance(operand, Merge | AddLora | Random) else ()


def _parameters(exprs: Sequence[Expr]) -> str:
    merges = [inner for expr in exprs if isinstance(inner := _outermost(expr), Merge)]
    if not merges:
        return ""
    shared = [_over_layers(name, [m.settings.shared[name] for m in merges]) for name in merges[0].settings.shared]
    own = [
        _over_inputs(name, [[values[name] for values in m.settings.inputs] for m in merges])
        for name in dict.fromkeys(key for values in merges[0].settings.inputs for key in values)
    ]
    return ", ".join([*own, *shared])


def _outermost(expr: Expr) -> Expr:
    """Returns what is left of an expression without the adapter laid on it and the way it is rounded."""
    if isinstance(expr, Dithered):
        return _outermost(expr.value)
    return _outermost(expr.weight) if isinstance(expr, AddLora) and isinstance(expr.weight, Merge) else expr


def _over_layers(name: str, values: Sequence[Value]) -> str:
    return f"{name} {_series([_number(value) for value in values])}"


def _over_inputs(name: str, rows: Sequence[Sequence[Value]]) -> str:
    """Returns one parameter's values, of all inputs side by side, over the layers; slices may have fewer."""
    count = max(map(len, rows))
    columns = [_series([_number(row[index]) for row in rows if index < len(row)]) for index in range(count)]
    return f"{name} {' | '.join(columns) if len(set(columns)) > 1 else columns[0]}"


def _series(values: Sequence[str]) -> str:
    runs = [value for index, value in enumerate(values) if index == 0 or value != values[index - 1]]
    if len(runs) <= SHOWN_VALUES:
        return " → ".join(runs)
    step = (len(runs) - 1) / (SHOWN_VALUES - 1)
    return " → ".join(runs[round(index * step)] for index in range(SHOWN_VALUES))


def _number(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _mentions(recipe: Recipe, met: set[int]) -> Iterator[tuple[ModelRef, str]]:
    """Yields every model that a recipe names, at any depth, and what it is there; empty if nothing is said of it.

    A recipe that stands in several places is gone into once; `met` has the `id()` of those that were.
    """
    yield from _base_mentions(recipe.base_model, met)
    for slice_ in recipe.slices:
        yield from _base_mentions(slice_.base_model, met)
        base = slice_.base_model or recipe.base_model
        for source in slice_.sources:
            if isinstance(source.model, Recipe):
                yield from _nested_mentions(source.model, met)
            else:
                yield source.model, _role_in_slice(source, is_base=source.model == base)
    if recipe.mixture is not None:
        yield from _expert_mentions(recipe.mixture, met)
    for name, module in (recipe.modules or {}).items():
        yield from ((model, role and f"in {name}: {role}") for model, role in _mentions(module, met))
    if recipe.lora is not None:
        yield recipe.lora, "LoRA on the merge"
    if recipe.tokenizer is not None:
        yield from _tokenizer_mentions(recipe.tokenizer)


def _tokenizer_mentions(choice: TokenizerChoice) -> Iterator[tuple[ModelRef, str]]:
    for source in tokenizer_sources(choice):
        if isinstance(source, ModelRef):
            yield source, "tokenizer" if choice.source == source else "embeddings of tokens"


def _base_mentions(base: Source | None, met: set[int]) -> Iterator[tuple[ModelRef, str]]:
    if isinstance(base, Recipe):
        yield from _nested_mentions(base, met)
    elif base is not None:
        yield base, "base model"


def _nested_mentions(nested: Recipe, met: set[int]) -> Iterator[tuple[ModelRef, str]]:
    if id(nested) not in met:
        met.add(id(nested))
        name = nested.name or nested.method
        yield from ((model, f"in {name}: {role}" if role else "") for model, role in _mentions(nested, met))


def _expert_mentions(mixture: Mixture, met: set[int]) -> Iterator[tuple[ModelRef, str]]:
    titles = [f"expert {number}" for number in range(len(mixture.experts))]
    titles += ["shared expert"] * len(mixture.shared_experts)
    for title, expert in zip(titles, mixture.all_experts, strict=True):
        if isinstance(expert.model, Recipe):
            yield from _nested_mentions(expert.model, met)
        else:
            yield expert.model, _role_of_expert(title, expert, with_prompts=mixture.gate_mode in PROMPTED_MODES)


def _role_of_expert(title: str, expert: Expert, *, with_prompts: bool) -> str:
    parts = [title]
    if with_prompts and expert.positive_prompts:
        parts[0] += f" for {_quoted(expert.positive_prompts)}"
    if with_prompts and expert.negative_prompts:
        parts.append(f"not for {_quoted(expert.negative_prompts)}")
    if expert.noise_scale:
        parts.append(f"noise {expert.noise_scale:g}")
    if expert.residual_scale != 1:
        parts.append(f"residual scale {expert.residual_scale:g}")
    return ", ".join(parts)


def _quoted(prompts: Sequence[str]) -> str:
    shown = [f"“{shorten(prompt, SHOWN_CHARACTERS, placeholder='…')}”" for prompt in prompts[:SHOWN_PROMPTS]]
    hidden = len(prompts) - len(shown)
    return ", ".join(shown) + (f" and {hidden} more" if hidden else "")


def _role_in_slice(source: SliceSource, *, is_base: bool) -> str:
    parts = [] if source.layer_range is None else [f"layers {source.layer_range[0]}-{source.layer_range[1]}"]
    if not is_base:
        parts += [f"{name} {setting_text(setting)}" for name, setting in source.parameters.items()]
    return ", ".join(parts)


def _role_of_part(ref: ModelRef, model: ModelRef, role: str) -> str:
    """Returns what `ref` is to the merge, being the model that has `role` or a part of it; empty if it is neither."""
    if ref == model:
        return role
    if ref == model.without_adapter:
        return f"{role} with {model.adapter}".strip()
    if ref != model.adapter:
        return ""
    return f"LoRA on {model.without_adapter}" + (f": {role}" if role else "")
