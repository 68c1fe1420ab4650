"""Which chat template a merge has: its tokenizer's own, a known one, the recipe's, or the parents' most common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hubmerge.merge.planned import PlannedModel, PlannedTokenizer
from hubmerge.merge.vocabularies import TokenizerOf
from hubmerge.tokenizer.templates import known_template, most_common


def with_chat_template(
    tokenizer: PlannedTokenizer, wanted: str | None, inputs: Sequence[PlannedModel], tokenizer_of: TokenizerOf
) -> PlannedTokenizer:
    """Returns the tokenizer with the template that a recipe asks for.

    Args:
        tokenizer: The result's.
        wanted: `auto`, the name of a known template, or Jinja; None to leave the tokenizer's own.
        inputs: The models that are merged, the base first; of equally common templates the first is taken.
        tokenizer_of: Gives the tokenizer of a model.
    """
    if wanted is None:
        return tokenizer
    if wanted != "auto":
        known = known_template(wanted)
        return replace(tokenizer, chat_template=known or wanted, template_from=wanted if known else None)
    found = [(model, text) for model in inputs if (text := _template_of(model, tokenizer_of))]
    chosen = most_common([text for _, text in found])
    if chosen is None:
        return tokenizer
    origin = next(model.tokenizer.parents[0] for model, text in found if text.strip() == chosen)
    return replace(tokenizer, chat_template=chosen, template_from=origin)


def _template_of(model: PlannedModel, tokenizer_of: TokenizerOf) -> str | None:
    if model.tokenizer.chat_template is not None:
        return model.tokenizer.chat_template
    tokenizer = tokenizer_of(model)
    return None if tokenizer is None else tokenizer.chat_template
