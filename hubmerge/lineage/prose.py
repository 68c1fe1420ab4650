"""What cards say in sentences: the model that was fine-tuned where no metadata names it, and contaminated data."""

from __future__ import annotations

import re

from hubmerge.card.front_matter import printable
from hubmerge.lineage.code_blocks import parts

_DESCENT = re.compile(
    r"\b(?:fine-?tun\w*|finetun\w*|dpo|trained|aligned|version|derivative|quanti[sz]\w*)\b[^.\n]{0,80}?"
    r"\b(?:of|from|on top of|on|using|based on)\s+(?:the\s+)?(?:model\s+)?"
    r"\[[^\]\n]{1,100}\]\((https?://(?:www\.)?(?:huggingface\.co|hf\.co)/"
    r"(?!datasets/|spaces/|papers/|collections/|docs/|blog/)[\w.-]+/[\w.-]+)/?\)",
    re.I | re.ASCII,
)
_CONTAMINATED = re.compile(r"\b(?:contaminat(?:ed|ion|es?)|test[- ]set leak\w*|data leak\w*)\b", re.I)
_DENIED = re.compile(
    r"\b(?:no|not|non|without|never|free (?:of|from)|avoid\w*|isn't|aren't)\b[^.]{0,60}\bcontaminat"
    r"|\bde-?contaminat|contamination[- ]free|uncontaminat",
    re.I,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")

LONGEST_QUOTE = 240
"""Characters of a quoted sentence; tables and badges make longer ones."""

MOST_QUOTES = 3
"""From one card: whoever wants to know more reads it."""


def described_parents(body: str) -> tuple[str, ...]:
    """Returns the addresses of the models that a card says it was fine-tuned from, by a link in such a sentence."""
    return tuple(dict.fromkeys(_DESCENT.findall(_prose(body))))


def contamination_warnings(body: str) -> tuple[str, ...]:
    """Returns the first sentences of a card that speak of contaminated data, those that deny it left out."""
    sentences = (_plain(sentence) for sentence in _SENTENCE_END.split(_prose(body)))
    warnings = (text for text in sentences if _CONTAMINATED.search(text) and not _DENIED.search(text))
    return tuple(dict.fromkeys(_cut(text) for text in warnings))[:MOST_QUOTES]


def _prose(body: str) -> str:
    return "\n".join(part.text for part in parts(body) if part.language is None)


def _plain(sentence: str) -> str:
    words = _LINK.sub(r"\1", sentence).replace("*", "").replace("`", "")
    return printable(" ".join(words.strip("#>-_ \t").split()))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 1]}…"
