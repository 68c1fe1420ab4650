"""What a recipe says, without the text it was written in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias, Union

from hubmerge.merge.settings import Setting
from hubmerge.weights.reference import ModelRef

Source: TypeAlias = Union[ModelRef, "Recipe"]
Parameters: TypeAlias = Mapping[str, Setting]


@dataclass(frozen=True)
class SliceSource:
    """One input of a slice.

    Attributes:
        layer_range: Layers [start, stop) of the model; None for all of them.
        parameters: What holds for this input alone.
        where: Its path and line in the recipe, for messages: `models[1] (line 12)`.
    """

    model: Source
    layer_range: tuple[int, int] | None
    parameters: Parameters
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Slice:
    """A run of output layers; every source gives as many layers as the others.

    Attributes:
        base_model: Base of this slice alone; None for the recipe's.
    """

    sources: tuple[SliceSource, ...]
    base_model: Source | None
    parameters: Parameters
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class ModelToken:
    """The embedding that a model has for a token, named by its text or its id."""

    model: Source
    token: str | None
    token_id: int | None


@dataclass(frozen=True)
class ZeroToken:
    """An embedding of zeros."""


@dataclass(frozen=True)
class TokenChoice:
    """Where a token's embedding comes from.

    Attributes:
        source: None for the usual rule.
        force: Whether models that have the token get this embedding too.
    """

    source: Source | ModelToken | ZeroToken | None
    force: bool


@dataclass(frozen=True)
class TokenizerChoice:
    """The output's vocabulary.

    Attributes:
        source: `union`, `base`, or the model whose tokenizer it is.
        pad_to_multiple_of: Rows of the embedding are filled up to a multiple of this; None for no padding.
    """

    source: Source | str
    tokens: Mapping[str, TokenChoice]
    pad_to_multiple_of: int | None


@dataclass(frozen=True)
class Expert:
    """A model whose feed-forward layers become one expert of each layer of a mixture.

    Attributes:
        positive_prompts: Texts that should be routed to it.
        negative_prompts: Texts that should not.
        noise_scale: Standard deviation of the noise that is added to its weights.
        residual_scale: Factor of the matrices that write into the residual stream.
        where: Its path and line in the recipe, for messages.
    """

    model: Source
    positive_prompts: tuple[str, ...] = ()
    negative_prompts: tuple[str, ...] = ()
    noise_scale: float = 0.0
    residual_scale: float = 1.0
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Mixture:
    """Dense models upcycled into a mixture of experts; the recipe's base gives all but the experts.

    Attributes:
        gate_mode: How the router starts out: by hidden states or embeddings of prompts, or at random.
        shared_experts: Those that every token goes through.
        architecture: Name of the result's architecture or its beginning; None for what fits the models.
    """

    gate_mode: str
    experts: tuple[Expert, ...]
    shared_experts: tuple[Expert, ...]
    experts_per_token: int
    architecture: str | None

    @property
    def all_experts(self) -> tuple[Expert, ...]:
        """The routed experts, then the shared."""
        return self.experts + self.shared_experts


@dataclass(frozen=True)
class Recipe:
    """A merge as its recipe states it; an input may itself be a recipe.

    Attributes:
        method: A name in `METHODS`; `moe` where `mixture` says what is made.
        slices: Output layers from first to last; empty where `modules` or `mixture` says it. The `models` form is one
            slice.
        modules: How each part of a model (`text_decoder`, `vision_tower`, ...) is made, complete with what the parts
            share; None where a merge is made as a whole.
        whole_models: Whether it was written as `models`: one slice, whose sources have no layer range.
        dtype: Dtype of the result unless `out_dtype` states it: float16, bfloat16, float32 or float64. Where both are
            None it is the promotion of the inputs.
        chat_template: `auto`, the name of a known template, or Jinja text.
        lora: An adapter that is added to the result before it is rounded.
        rounding: `nearest` or `stochastic`, of the outermost recipe alone.
        name: What other documents of the same file call it.
        warnings: What was accepted but has no effect or another effect than elsewhere, one sentence each, with path and
            line. The outermost recipe has those of all.
        text: The recipe as it was written, all documents of the file.
        where: Its path and line, for messages; see `SliceSource`.
    """

    method: str
    slices: tuple[Slice, ...]
    whole_models: bool
    base_model: Source | None
    parameters: Parameters
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer: TokenizerChoice | None = None
    chat_template: str | None = None
    modules: Mapping[str, Recipe] | None = None
    mixture: Mixture | None = None
    lora: ModelRef | None = None
    rounding: str = "nearest"
    name: str | None = None
    seed: int = 0
    warnings: tuple[str, ...] = ()
    text: str = field(default="", repr=False, compare=False)
    where: str = field(default="", compare=False)

    @property
    def is_double(self) -> bool:
        """Whether its arithmetic is done in fp64, whatever the models hold."""
        return "float64" in (self.dtype, self.out_dtype)

    @property
    def donor(self) -> Source:
        """The model that gives config.json and what stands beside it."""
        if self.base_model is not None:
            return self.base_model
        return next(iter(self.modules.values())).donor if self.modules else self.slices[0].sources[0].model

    @property
    def sources(self) -> Iterator[Source]:
        """The models that are merged, the base first, with repetitions."""
        bases = (self.base_model, *(slice_.base_model for slice_ in self.slices))
        yield from (base for base in bases if base is not None)
        yield from (source.model for slice_ in self.slices for source in slice_.sources)
        for module in (self.modules or {}).values():
            yield from module.sources
        if self.mixture is not None:
            yield from (expert.model for expert in self.mixture.all_experts)

    def tree(self) -> Iterator[Recipe]:
        """Yields the recipe and those that stand in the place of its models, at any depth, each once."""
        met: set[int] = set()
        waiting = [self]
        while waiting:
            recipe = waiting.pop()
            if id(recipe) not in met:
                met.add(id(recipe))
                yield recipe
                waiting.extend(reversed([source for source in recipe.sources if isinstance(source, Recipe)]))

    def with_seed(self, seed: int) -> Recipe:
        """Returns the recipe with another seed; recipes that stand in a model's place keep theirs."""
        modules = self.modules and {name: module.with_seed(seed) for name, module in self.modules.items()}
        return replace(self, seed=seed, modules=modules)
