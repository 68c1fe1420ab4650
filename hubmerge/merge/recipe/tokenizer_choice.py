"""Reads `tokenizer`, its short form `tokenizer_source`, and `chat_template`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hubmerge.merge.recipe.fields import Remarks, did_you_mean, fault, flag, mapping, text, whole_number
from hubmerge.merge.recipe.keys import TOKEN_KEYS, TOKENIZER_KEYS
from hubmerge.merge.recipe.language import check_keys
from hubmerge.merge.recipe.model import ModelToken, Source, TokenChoice, TokenizerChoice, ZeroToken
from hubmerge.merge.recipe.yaml_tree import Item

CHAT_TEMPLATES = ("auto", "alpaca", "chatml", "exaone", "llama3", "mistral")

ReadSource = Callable[[Item], Source]

_SOURCE_WORDS = ("union", "base")
_OLD_PREFIX = "model:"
"""Recipes of 2023 write `tokenizer_source: model:org/name`."""


def read_tokenizer(found: Mapping[str, Item], source: ReadSource, remarks: Remarks) -> TokenizerChoice | None:
    """Returns the vocabulary that a recipe asks for, or None."""
    if "tokenizer" in found and "tokenizer_source" in found:
        raise fault(found["tokenizer_source"], "tokenizer says it already; a recipe takes one of them")
    if "tokenizer_source" in found:
        return TokenizerChoice(_vocabulary(found["tokenizer_source"], source), {}, None)
    if "tokenizer" not in found:
        return None
    item = found["tokenizer"]
    keys = check_keys(item, TOKENIZER_KEYS, remarks)
    tokens = mapping(keys["tokens"]) if "tokens" in keys else {}
    return TokenizerChoice(
        source=_vocabulary(keys["source"], source) if "source" in keys else "union",
        tokens={token: _token(choice, source, remarks) for token, choice in tokens.items()},
        pad_to_multiple_of=_positive(keys["pad_to_multiple_of"]) if "pad_to_multiple_of" in keys else None,
    )


def read_chat_template(item: Item | None) -> str | None:
    """Returns a known template's name, `auto`, or Jinja text; None, as for empty text, keeps the tokenizer's own."""
    if item is None or item.value == "":
        return None
    written = text(item)
    if written not in CHAT_TEMPLATES and "{" not in written:
        names = ", ".join(CHAT_TEMPLATES)
        raise fault(item, f"is neither Jinja nor one of {names}{did_you_mean(written, CHAT_TEMPLATES)}")
    return written


def _vocabulary(item: Item, source: ReadSource) -> Source | str:
    if isinstance(item.value, str):
        written = text(item)
        if written in _SOURCE_WORDS:
            return written
        if written.startswith(_OLD_PREFIX):
            return source(item.rewritten(written.removeprefix(_OLD_PREFIX)))
    return source(item)


def _token(item: Item, source: ReadSource, remarks: Remarks) -> TokenChoice:
    keys = check_keys(item, TOKEN_KEYS, remarks)
    return TokenChoice(
        source=_embedding(keys["source"], source, remarks) if "source" in keys else None,
        force=flag(keys["force"]) if "force" in keys else False,
    )


def _embedding(item: Item, source: ReadSource, remarks: Remarks) -> Source | ModelToken | ZeroToken:
    if not isinstance(item.value, Mapping) or "kind" not in item.value:
        return source(item)
    kind = text(item.value["kind"])
    if kind == "zero":
        check_keys(item, ("kind",), remarks)
        return ZeroToken()
    if kind != "model_token":
        raise fault(item.value["kind"], f"must be model_token or zero, not {kind}")
    return _model_token(item, source, remarks)


def _model_token(item: Item, source: ReadSource, remarks: Remarks) -> ModelToken:
    keys = check_keys(item, ("kind", "model", "token", "token_id"), remarks)
    if "model" not in keys:
        raise fault(item, "a model_token needs its model")
    if ("token" in keys) == ("token_id" in keys):
        raise fault(item, "a model_token takes either its token or its token_id")
    return ModelToken(
        model=source(keys["model"]),
        token=keys["token"].text if "token" in keys else None,
        token_id=_not_negative(keys["token_id"]) if "token_id" in keys else None,
    )


def _positive(item: Item) -> int:
    if (value := whole_number(item)) < 1:
        raise fault(item, f"must be at least 1, not {value}")
    return value


def _not_negative(item: Item) -> int:
    if (value := whole_number(item)) < 0:
        raise fault(item, f"must not be negative, and is {value}")
    return value
