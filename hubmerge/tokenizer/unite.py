"""One tokenizer that knows the tokens of several: the first one's, with what it lacks put behind its own.

Ids of the first tokenizer stay as they are. Then come the ordinary tokens of the others, in their order, and at last
their added tokens. In the result every token stands in the model's own vocabulary, added ones too, because the
`tokenizers` library numbers those that do not stand there anew.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hubmerge.tokenizer.read import FLAGS, AddedToken, Tokenizer, ordinary_ids

UNREACHED_SCORE = 10.0
"""How far below the least likely piece of a Unigram model a token is put that has no score of its own."""


@dataclass(frozen=True)
class Additions:
    """What is put behind a vocabulary; what is already in it is passed over.

    Attributes:
        ordinary: Tokens and, if both tokenizers are Unigram models, their scores.
        merges: Pairs of a BPE model, in the order in which they apply.
        added: Added tokens and their flags.
    """

    ordinary: Mapping[str, float | None] = field(default_factory=dict)
    merges: Sequence[tuple[str, str]] = ()
    added: Mapping[str, AddedToken] = field(default_factory=dict)


def unite(first: Tokenizer, others: Iterable[Tokenizer]) -> Tokenizer:
    """Returns the first tokenizer, extended by all tokens of the others.

    Ordinary tokens of a tokenizer of another kind get a row, but nothing that would make the first one's way of
    splitting a text produce them.

    Raises:
        SourceError: One of them is not stored as a tokenizer.json.
    """
    ordinary: dict[str, float | None] = {}
    merges: dict[tuple[str, str], None] = {}
    added: dict[str, AddedToken] = {}
    for other in others:
        is_same_kind = other.kind == first.kind
        for token, score in _ordinary(other).items():
            ordinary.setdefault(token, score if is_same_kind else None)
        merges.update(dict.fromkeys(_merges(other.data["model"]) if is_same_kind else ()))
        for content, flags in other.added.items():
            added.setdefault(content, flags)
    ordinary = {token: score for token, score in ordinary.items() if token not in added}
    return extend(first, Additions(ordinary, tuple(merges), added))


def extend(tokenizer: Tokenizer, additions: Additions) -> Tokenizer:
    """Returns a tokenizer with more tokens; itself if it has all of them."""
    known = set(_merges(tokenizer.data["model"]))
    merges = [pair for pair in additions.merges if pair not in known]
    added = {**tokenizer.added, **{token: f for token, f in additions.added.items() if token not in tokenizer.added}}
    tokens = [token for token in (*additions.ordinary, *additions.added) if token not in tokenizer.ids]
    if not (merges or tokens or len(added) > len(tokenizer.added)):
        return tokenizer
    first_free = max(tokenizer.ids.values(), default=-1) + 1
    ids = {**tokenizer.ids, **{token: first_free + place for place, token in enumerate(dict.fromkeys(tokens))}}
    backend = {
        **tokenizer.data,
        "added_tokens": [{"id": ids[content], "content": content, **flags} for content, flags in added.items()],
        "model": _extended_model(tokenizer.data["model"], ids, additions.ordinary, merges),
    }
    return replace(tokenizer, backend=backend, config=_config(tokenizer.config, backend["added_tokens"]))


def added_flags(tokenizers: Iterable[Tokenizer], content: str) -> AddedToken:
    """Returns the flags of an added token in the first tokenizer that has it; none set where no one has."""
    return next((t.added[content] for t in tokenizers if content in t.added), dict.fromkeys(FLAGS, False))


def _ordinary(tokenizer: Tokenizer) -> dict[str, float | None]:
    """Returns the tokens that are not added ones in the order of their ids, with their scores."""
    vocabulary = tokenizer.data["model"]["vocab"]
    scores = {token: float(score) for token, score in vocabulary} if isinstance(vocabulary, list) else {}
    return {token: scores.get(token) for token in tokenizer.ids if token not in tokenizer.added}


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the pairs of a BPE model; old files write them as one text, split at its first space."""
    pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model.get("merges") or ())
    return [(left, right) for left, right in pairs]


def _extended_model(
    model: Mapping[str, Any],
    ids: Mapping[str, int],
    scores: Mapping[str, float | None],
    merges: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    extended = {key: copy.deepcopy(value) for key, value in model.items() if key not in ("vocab", "merges")}
    if isinstance(model["vocab"], list):
        extended["vocab"] = _pieces(model["vocab"], ids, scores)
    else:
        extended["vocab"] = dict(sorted(ids.items(), key=lambda item: item[1]))
    if "merges" in model:
        extended["merges"] = [list(pair) for pair in (*_merges(model), *merges)]
    return extended


def _pieces(
    vocabulary: Sequence[Sequence[Any]], ids: Mapping[str, int], scores: Mapping[str, float | None]
) -> list[list[Any]]:
    """Returns the pieces of a Unigram model, whose places are their ids."""
    lowest = min((float(score) for _, score in vocabulary), default=0.0) - UNREACHED_SCORE
    present = ordinary_ids({"vocab": vocabulary})
    later = sorted((token for token in ids if token not in present), key=lambda token: ids[token])
    pieces = [list(piece) for piece in vocabulary]
    for token in later:
        score = scores.get(token)
        pieces.append([token, lowest if score is None else score])
    return pieces


def _config(config: Mapping[str, Any], added_tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns tokenizer_config.json with the list of added tokens that older versions of transformers read there."""
    renewed = dict(config)
    if "added_tokens_decoder" in renewed:
        renewed["added_tokens_decoder"] = {
            str(entry["id"]): {key: value for key, value in entry.items() if key != "id"} for entry in added_tokens
        }
    return renewed
