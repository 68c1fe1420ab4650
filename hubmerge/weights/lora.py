"""A LoRA adapter laid on its base, from headers alone: which weight gets which low-rank delta, and which is replaced.

An adapter names the modules of the model in memory as they were when it was trained; a checkpoint names tensors as
they are stored. The two differ in what stands in front (`base_model.model.`, `language_model.`, ...), never in layer
numbers or in what follows them, and that is how they are matched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hubmerge.merge.layers import names_tower
from hubmerge.weights.dtypes import is_float
from hubmerge.weights.header import TensorInfo
from hubmerge.weights.lora_config import LoraConfig

Factor = Literal["A", "B"]
Shape = tuple[int, ...]

PEFT_PREFIX = "base_model.model."

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?:embedding_)?(?P<factor>[AB])(?:\.(?!weight$|bias$)[^.]+)?(?:\.weight)?")
_WRAPPED = re.compile(r"\.(base_layer|modules_to_save(\.[^.]+)?)(?=\.(weight|bias)$)")
_ORIGINAL = re.compile(r"\.original_module\.(weight|bias)$")
"""The base's own tensor, which peft saves beside the copy in `modules_to_save` when it saves embeddings."""

_STACKS = frozenset({"encoder", "decoder"})
"""Parts of one model that may have tensors of the same names; as a tower's, their names are not to be confused."""


@dataclass(frozen=True)
class Delta:
    """What is added to a weight W: scale · B·A, or its transpose.

    Attributes:
        a: `(rank, in)`, of a convolution `(rank, in, kernel...)`, of an embedding `(rank, vocab)`.
        b: `(out, rank)`, of a convolution `(out, rank, 1...)`, of an embedding `(hidden, rank)`.
        is_transposed: Whether W is `(in, out)`; embeddings are.
    """

    a: TensorInfo
    b: TensorInfo
    scale: float
    is_transposed: bool


@dataclass(frozen=True)
class Fit:
    """An adapter matched with a base; the keys are names of the base's tensors.

    Attributes:
        deltas: What is added.
        replacements: The adapter's own copies: biases, and modules that were trained whole.
        problems: (tensor of the adapter, what is wrong with it); then the rest is of no use.
    """

    deltas: Mapping[str, Delta]
    replacements: Mapping[str, TensorInfo]
    problems: tuple[tuple[str, str], ...]


class _Misfit(Exception):
    """A tensor of an adapter that does not fit the base; the message is a sentence without its name."""


def fit_adapter(
    config: LoraConfig,
    adapter: Mapping[str, TensorInfo],
    base: Mapping[str, tuple[str, Shape]],
    *,
    label: str,
    token_tables: Collection[str] = (),
) -> Fit:
    """Returns what an adapter does to each weight of a base.

    Args:
        config: From its adapter_config.json.
        adapter: Its tensors by name.
        base: (dtype, shape) of the base's tensors by name.
        label: What messages call the base.
        token_tables: Tensors of the base with a row for each token, which may be replaced by such with other tokens.
    """
    homes = _Homes(base, label)
    found = _Found(homes, base, token_tables)
    for name, info in adapter.items():
        found.add(name, info)
    shown = any(_is_sideways(pair, found.home(home)) for home, pair in found.pairs.items())
    deltas = dict(found.deltas(config, is_transposed=shown or _has_sideways(base)))
    return Fit(deltas, found.replacements, tuple(found.problems))


def bias_shows_transposed(shape: Shape, bias: Shape | None) -> bool | None:
    """Returns whether a weight's bias shows that it is stored as `(in, out)`; None if it shows nothing."""
    if bias is None or len(shape) != 2 or shape[0] == shape[1] or bias not in ((shape[0],), (shape[1],)):
        return None
    return bias == (shape[1],)


def module_of(name: str) -> str:
    """Returns the module that a tensor of an adapter belongs to, as the model in memory calls it."""
    bare = name.removeprefix(PEFT_PREFIX)
    if factor := _FACTOR.fullmatch(bare):
        return factor["module"]
    return _WRAPPED.sub("", bare).rpartition(".")[0]


@dataclass
class _Pair:
    """The factors of one weight, as far as they have been found."""

    module: str
    names: dict[Factor, str] = field(default_factory=dict)
    infos: dict[Factor, TensorInfo] = field(default_factory=dict)


class _Found:
    """The tensors of an adapter, sorted by the weights that they fit."""

    def __init__(self, homes: _Homes, base: Mapping[str, tuple[str, Shape]], token_tables: Collection[str]) -> None:
        self.pairs: dict[str, _Pair] = {}
        self.replacements: dict[str, TensorInfo] = {}
        self.problems: list[tuple[str, str]] = []
        self._homes = homes
        self._base = base
        self._token_tables = token_tables

    def home(self, name: str) -> tuple[str, Shape]:
        """Returns the dtype of a tensor of the base, and its shape once it is replaced."""
        dtype, shape = self._base[name]
        return dtype, self.replacements[name].shape if name in self.replacements else shape

    def add(self, name: str, info: TensorInfo) -> None:
        """Puts one tensor in its place, or records why there is none."""
        bare = name.removeprefix(PEFT_PREFIX)
        factor = _FACTOR.fullmatch(bare)
        if _ORIGINAL.search(bare):
            return
        try:
            if not is_float(info.dtype):
                raise _Misfit(f"its dtype {info.dtype} is not one of weights")
            if factor:
                self._add_factor(name, factor["module"], "A" if factor["factor"] == "A" else "B", info)
            else:
                self._add_replacement(bare, info)
        except _Misfit as misfit:
            self.problems.append((name, str(misfit)))

    def deltas(self, config: LoraConfig, *, is_transposed: bool) -> Iterator[tuple[str, Delta]]:
        """Yields (weight, what is added to it); records what cannot be added."""
        for home, pair in self.pairs.items():
            try:
                yield home, _delta(pair, config, self.home(home), is_transposed=is_transposed)
            except _Misfit as misfit:
                self.problems.append((next(iter(pair.names.values())), str(misfit)))

    def _add_factor(self, name: str, module: str, factor: Factor, info: TensorInfo) -> None:
        home = self._homes.find(f"{module}.weight")
        pair = self.pairs.setdefault(home, _Pair(module))
        if pair.module != module or factor in pair.names:
            raise _Misfit(f"{home} is changed twice; {pair.names.get(factor, pair.module)} changes it too")
        pair.names[factor], pair.infos[factor] = name, info

    def _add_replacement(self, bare: str, info: TensorInfo) -> None:
        if ".lora_" in bare:
            raise _Misfit("hubmerge does not know this kind of adapter tensor")
        home = self._homes.find(_WRAPPED.sub("", bare))
        dtype, shape = self._base[home]
        if known := self.replacements.get(home):
            self.replacements[home] = _plainly_named(known, info, home)
            return
        is_resized = home in self._token_tables and shape[1:] == info.shape[1:] and len(shape) == len(info.shape)
        if not (shape == info.shape or is_resized) or not is_float(dtype):
            raise _Misfit(
                f"it takes the place of {home}, {_size(shape)} {dtype}, but is {_size(info.shape)} {info.dtype}"
            )
        self.replacements[home] = info


class _Homes:
    """The names of a base's tensors, found by those of an adapter."""

    def __init__(self, names: Iterable[str], label: str) -> None:
        self._label = label
        self._by_core: dict[str, list[tuple[str, ...]]] = {}
        for name in names:
            head, core = _head_and_core(name)
            self._by_core.setdefault(core, []).append(head)

    def find(self, name: str) -> str:
        """Returns the tensor of the base that a module's parameter is; raises _Misfit if there is none, or several."""
        own, core = _head_and_core(name)
        heads = [head for head in self._by_core.get(core, ()) if _may_be_same(own, head)]
        if not heads:
            raise _Misfit(f"it fits no tensor of {self._label}")
        nearness = {head: _nearness(own, head) for head in heads}
        best = [head for head in heads if nearness[head] == max(nearness.values())]
        if len(best) > 1:
            options = " and ".join(".".join((*head, core)) for head in best[:2])
            raise _Misfit(f"it fits {options} of {self._label} equally well")
        return ".".join((*best[0], core))


def _plainly_named(one: TensorInfo, other: TensorInfo, home: str) -> TensorInfo:
    """Returns which of two tensors for one place peft loads, where it has saved a module under both of its names."""
    plain = [info for info in (one, other) if ".modules_to_save." not in info.name]
    if len(plain) != 1 or one.shape != other.shape:
        raise _Misfit(f"{home} is replaced twice")
    return plain[0]


def _head_and_core(name: str) -> tuple[tuple[str, ...], str]:
    """Splits a tensor's name into what may differ between memory and disk, and what may not.

    The core begins with the word before the first number; without a number it is the module's own name and the
    parameter's.
    """
    words = name.split(".")
    numbers = (index - 1 for index, word in enumerate(words) if word.isdecimal() and index > 0)
    start = next(numbers, max(0, len(words) - 2))
    return tuple(words[:start]), ".".join(words[start:])


def _may_be_same(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two heads may belong to the same tensor: neither names a tower or a stack that the other does not."""
    return not any(word in _STACKS or names_tower(word) for word in set(one) ^ set(other))


def _nearness(one: Sequence[str], other: Sequence[str]) -> tuple[bool, int, int]:
    """Returns a key that is the larger, the more alike two heads are: the same, ending alike, having the same words."""
    shorter = min(len(one), len(other))
    alike = next((n for n in range(shorter) if one[-1 - n] != other[-1 - n]), shorter)
    return one == other, alike, -len(set(one) ^ set(other))


def _delta(pair: _Pair, config: LoraConfig, home: tuple[str, Shape], *, is_transposed: bool) -> Delta:
    dtype, shape = home
    a, b = pair.infos.get("A"), pair.infos.get("B")
    if a is None or b is None:
        raise _Misfit(f"it has no {'A' if a is None else 'B'} beside it")
    if not is_float(dtype):
        raise _Misfit(f"it changes a tensor of dtype {dtype}, to which nothing can be added")
    rank = config.rank_of(pair.module)
    if a.shape[:1] != (rank,) or b.shape[1:2] != (rank,):
        raise _Misfit(f"it is {_size(a.shape)} and {_size(b.shape)}, but adapter_config.json gives it the rank {rank}")
    straight, sideways = _fits_straight(a, b, shape), _fits_sideways(a, b, shape)
    if not straight and not sideways:
        raise _Misfit(f"it is {_size(a.shape)} and {_size(b.shape)}, which makes no delta of {_size(shape)}")
    prefers_sideways = is_transposed or ".lora_embedding_" in pair.names["A"]
    return Delta(a, b, config.scale_of(pair.module), sideways and (prefers_sideways or not straight))


def _has_sideways(base: Mapping[str, tuple[str, Shape]]) -> bool:
    """Whether biases of the base show that its weights are stored as `(in, out)`, as GPT-2's are."""
    biases = {name.removesuffix(".bias"): shape for name, (_, shape) in base.items() if name.endswith(".bias")}
    weights = {name.removesuffix(".weight"): shape for name, (_, shape) in base.items() if name.endswith(".weight")}
    return any(bias_shows_transposed(shape, biases.get(module)) for module, shape in weights.items())


def _is_sideways(pair: _Pair, home: tuple[str, Shape]) -> bool:
    """Whether a weight's shape shows that it is stored as `(in, out)`.

    `fan_in_fan_out` in the config cannot be relied on: peft goes by the class of each module, and overwrites the flag
    by the last one that it wraps. A square weight is taken to be stored as the others are.
    """
    if len(pair.infos) < 2 or ".lora_embedding_" in pair.names["A"]:
        return False
    a, b, shape = pair.infos["A"], pair.infos["B"], home[1]
    return _fits_sideways(a, b, shape) and not _fits_straight(a, b, shape)


def _fits_straight(a: TensorInfo, b: TensorInfo, shape: Shape) -> bool:
    return len(shape) > 1 and (b.shape[:1], a.shape[1:]) == (shape[:1], shape[1:]) and math.prod(b.shape[2:]) == 1


def _fits_sideways(a: TensorInfo, b: TensorInfo, shape: Shape) -> bool:
    return len(shape) == len(a.shape) == len(b.shape) == 2 and (a.shape[1], b.shape[0]) == shape


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"
