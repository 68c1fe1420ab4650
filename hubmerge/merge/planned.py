"""A model as a plan sees it: every tensor's dtype, shape and the expression that makes it, and no data.

A checkpoint is a planned model whose expressions are loads; a recipe is one whose expressions are merges. That is why a
recipe can stand wherever a model can, to any depth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubmerge.merge.expr import Expr, Load
from hubmerge.merge.layers import LayerStack, role
from hubmerge.merge.modules import Module, find_modules
from hubmerge.tokenizer import Tokenizer, vocabulary_identity
from hubmerge.weights.checkpoint import Checkpoint
from hubmerge.weights.json_files import text_config


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor that can be made.

    Attributes:
        dtype: safetensors code of the dtype that it is stored in unless a recipe states another.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    expr: Expr

    @property
    def elements(self) -> int:
        """Number of elements; a scalar has one."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class PlannedTokenizer:
    """The tokenizer of a model that can be made.

    Attributes:
        parents: Numbers of the parents whose vocabulary it has: first the one whose files and ids it has, then those
            that tokens were added from.
        built: In place of the first parent's; None if that one's files are taken as they are.
        chat_template: Jinja text in place of the template that comes with the files; None to leave that.
        identity: Of the first parent's files, where it is known without reading them; equal ones mean equal tokenizers.
        template_from: Where `chat_template` comes from: its name in recipes, or the number of the parent that has it;
            None if it is the recipe's own.
    """

    parents: tuple[int, ...]
    built: Tokenizer | None = None
    chat_template: str | None = None
    template_from: str | int | None = None
    identity: str | None = None


@dataclass(frozen=True)
class PlannedModel:
    """A model that can be made.

    Attributes:
        label: What messages call it.
        donor: Number of the parent whose config.json it has, and what stands beside it.
        config: config.json as it will be.
        modules: Every tensor is in one of them.
    """

    label: str
    donor: int
    config: Mapping[str, Any]
    tensors: Mapping[str, PlannedTensor]
    modules: Sequence[Module]
    tokenizer: PlannedTokenizer

    @property
    def main(self) -> Module | None:
        """The language model, or the only module there is; None of a model without tensors."""
        return next((module for module in self.modules if module.is_main), None)

    @property
    def layers(self) -> LayerStack | None:
        """The language model's layers; None if the names show none."""
        return self.main.layers if self.main else None

    @property
    def layer_count(self) -> int:
        """Number of the language model's layers; 0 if the names show none."""
        return self.main.layer_count if self.main else 0

    def find(self, name: str) -> PlannedTensor | None:
        """Returns the tensor of that name; of a head that is tied to the embedding, the embedding."""
        found = self.tensors.get(name)
        if found is None and self.ties_embeddings and is_head(name, self.layers):
            return next((t for t in self.tensors.values() if role(t.name, self.layers) == "embed"), None)
        return found

    @property
    def ties_embeddings(self) -> bool:
        """Whether the head shares the embedding's weights; true where config is silent, as in transformers."""
        nested = text_config(self.config)
        return bool(self.config.get("tie_word_embeddings", nested.get("tie_word_embeddings", True)))


def is_head(name: str, layers: LayerStack | None) -> bool:
    """Returns whether a tensor is the output matrix, which a tied model does not store; its bias it may have."""
    return name.endswith(".weight") and role(name, layers) == "head"


def from_checkpoint(checkpoint: Checkpoint, *, parent: int) -> PlannedModel:
    """Returns the model that is stored as parent number `parent`."""
    tensors = {
        name: PlannedTensor(name, source.info.dtype, source.info.shape, Load(parent, source.file, source.info))
        for name, source in checkpoint.tensors.items()
    }
    return planned_model(
        checkpoint.files.label,
        donor=parent,
        config=checkpoint.config,
        tensors=tensors,
        tokenizer=PlannedTokenizer((parent,), identity=vocabulary_identity(checkpoint.files)),
    )


def planned_model(
    label: str,
    *,
    donor: int,
    config: Mapping[str, Any],
    tensors: Mapping[str, PlannedTensor],
    tokenizer: PlannedTokenizer,
) -> PlannedModel:
    """Returns the model that has these tensors, its modules found from their names."""
    return PlannedModel(label, donor, config, tensors, find_modules(tensors, config), tokenizer)
