"""What a model's tokenizer makes of preference pairs: lengths, and faults of the chat template that ruin a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from hubmerge.errors import DataError
from hubmerge.trainer.pairs import is_conversation

QUANTILES = (0.5, 0.9, 0.99, 1.0)

_END_TOKENS = 3
"""Templates write a line break or two after the token that ends an answer."""


@dataclass(frozen=True)
class TokenisedPair:
    """One pair in numbers of tokens.

    Attributes:
        prompt: Tokens before the answers.
        chosen: Tokens of the preferred answer alone.
        is_prefix: Whether the prompt reads the same with and without an answer behind it.
        ends: Whether both answers end with the token at which generation stops.
    """

    prompt: int
    chosen: int
    rejected: int
    is_prefix: bool
    ends: bool

    @property
    def tokens(self) -> int:
        """Of the longer of the two sequences."""
        return self.prompt + max(self.chosen, self.rejected)


@dataclass(frozen=True)
class DataReport:
    """What was found in a number of pairs; shares are of all of them.

    Attributes:
        tokens: Quantile -> tokens of a pair's longer sequence.
        dropped: Share whose prompt alone fills `max_length`.
        cut: Share of the others whose answers lose their end.
        chosen_longer: Share whose preferred answer is the longer one.
        warnings: What will hurt the training, one sentence each.
    """

    pairs: int
    tokens: Mapping[float, int]
    dropped: float
    cut: float
    chosen_longer: float
    warnings: tuple[str, ...]


def check_tokenizer(tokenizer: Any, pair: Mapping[str, Any]) -> None:
    """Raises DataError if the tokenizer cannot render such a pair at all."""
    if is_conversation(pair) and not getattr(tokenizer, "chat_template", None):
        raise DataError(
            "the data are conversations and the model's tokenizer has no chat template",
            hint="Merge with `chat_template: chatml` in the recipe, or give the model's repo a template.",
        )
    if tokenizer.eos_token is None:
        raise DataError(
            "the model's tokenizer has no end-of-sequence token, so answers would never end",
            hint="Set eos_token in its tokenizer_config.json.",
        )


@dataclass(frozen=True)
class Encoded:
    """One pair as token ids; the prompt is what both sequences begin with."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def encode(pair: Mapping[str, Any], tokenizer: Any, *, max_length: int) -> Encoded:
    """Returns a pair as TRL's DPOTrainer trains on it: each sequence cut at its end to `max_length` tokens.

    Raises:
        DataError: The chat template refuses these messages.
    """
    prompt, chosen, rejected = _token_ids(pair, tokenizer)
    start = min(_common(prompt, chosen), _common(prompt, rejected))
    return Encoded(tuple(prompt[:start]), tuple(chosen[start:max_length]), tuple(rejected[start:max_length]))


def tokenised(pair: Mapping[str, Any], tokenizer: Any) -> TokenisedPair:
    """Returns the numbers of a pair as TRL's DPOTrainer tokenises it.

    Raises:
        DataError: The chat template refuses these messages.
    """
    prompt, chosen, rejected = _token_ids(pair, tokenizer)
    start = min(_common(prompt, chosen), _common(prompt, rejected))
    ends = all(tokenizer.eos_token_id in answer[-_END_TOKENS:] for answer in (chosen, rejected))
    return TokenisedPair(start, len(chosen) - start, len(rejected) - start, start == len(prompt), ends)


def report(pairs: Sequence[TokenisedPair], *, max_length: int, eos_token: str) -> DataReport:
    """Returns what training on these pairs, of which there is at least one, would mean at a maximal length.

    Raises:
        DataError: No pair would be left.
    """
    kept = [pair for pair in pairs if pair.prompt < max_length]
    if not kept:
        longest = max(pair.tokens for pair in pairs)
        raise DataError(
            f"every prompt has {max_length:,} tokens or more, so no pair is left to train on",
            hint=f"The longest pair has {longest:,} tokens: raise max_length or take others.",
        )
    ordered = sorted(pair.tokens for pair in pairs)
    cut = sum(pair.tokens > max_length for pair in kept) / len(pairs)
    dropped = (len(pairs) - len(kept)) / len(pairs)
    return DataReport(
        pairs=len(pairs),
        tokens={share: ordered[ceil(share * len(ordered)) - 1] for share in QUANTILES},
        dropped=dropped,
        cut=cut,
        chosen_longer=sum(pair.chosen > pair.rejected for pair in pairs) / len(pairs),
        warnings=tuple(_warnings(pairs, dropped=dropped, cut=cut, max_length=max_length, eos_token=eos_token)),
    )


def _warnings(
    pairs: Sequence[TokenisedPair], *, dropped: float, cut: float, max_length: int, eos_token: str
) -> Iterable[str]:
    other_prompts = sum(not pair.is_prefix for pair in pairs) / len(pairs)
    endless = sum(not pair.ends for pair in pairs) / len(pairs)
    longer = sum(pair.chosen > pair.rejected for pair in pairs) / len(pairs)
    if other_prompts:
        yield (
            f"of {other_prompts:.0%} of the prompts the chat template makes other tokens alone than with an answer "
            "behind them; the model is trained on another context than it will see"
        )
    if endless:
        yield f"of {endless:.0%} of the pairs an answer does not end with {eos_token}; the model may not learn to stop"
    if dropped:
        yield f"{dropped:.1%} of the pairs are dropped, as their prompt alone has {max_length:,} tokens or more"
    if cut:
        yield f"{cut:.1%} of the pairs are longer than {max_length:,} tokens and lose the end of an answer"
    if not 0.2 <= longer <= 0.8 and len(pairs) >= 50:
        which = "longer" if longer > 0.5 else "shorter"
        share = max(longer, 1 - longer)
        yield f"the chosen answer is the {which} one in {share:.0%} of the pairs, so length may be learned for quality"


def _token_ids(pair: Mapping[str, Any], tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """Returns the ids of the prompt alone, with the chosen and with the rejected answer."""
    render = _conversation if is_conversation(pair) else _plain_text
    return render(pair, tokenizer)


def _conversation(pair: Mapping[str, Any], tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    rendered = [
        _rendered(tokenizer, pair["prompt"], answer, generation=answer is None)
        for answer in (None, pair["chosen"], pair["rejected"])
    ]
    prompt, chosen, rejected = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in rendered)
    return prompt, chosen, rejected


def _rendered(tokenizer: Any, prompt: list[Any], answer: list[Any] | None, *, generation: bool) -> str:
    try:
        text: str = tokenizer.apply_chat_template(
            [*prompt, *(answer or [])], tokenize=False, add_generation_prompt=generation
        )
    except Exception as error:  # a template may raise anything, and does for a system message that it does not know
        raise DataError(
            f"the model's chat template refuses a conversation of the data: {error}",
            hint="It may take no system message, or want user and assistant in turns.",
        ) from None
    return text


def _plain_text(pair: Mapping[str, Any], tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    answers = [
        answer if answer.endswith(tokenizer.eos_token) else answer + tokenizer.eos_token
        for answer in (pair["chosen"], pair["rejected"])
    ]
    texts = (pair["prompt"], *(pair["prompt"] + answer for answer in answers))
    prompt, chosen, rejected = (tokenizer(text)["input_ids"] for text in texts)
    return prompt, chosen, rejected


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    length = min(len(first), len(second))
    return next((index for index in range(length) if first[index] != second[index]), length)
