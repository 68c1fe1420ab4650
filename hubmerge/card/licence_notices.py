"""The duties that come with a parent's licence: notices, credit and names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hubmerge.card.licence_ids import Family, family_of

_CREDIT = (Family.ATTRIBUTION, Family.NONCOMMERCIAL, Family.SHARE_ALIKE, Family.NONCOMMERCIAL_SHARE_ALIKE)

SHOWN_NAMES = 8
"""Of models in one sentence; an ancestry may have hundreds, and LICENSE.md lists them all."""

_GEMMA = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms."
_LLAMA_COPYRIGHT = (
    "{0} is licensed under the {0} Community License, Copyright © Meta Platforms, Inc. All Rights Reserved."
)
_LLAMA_MIXED = (
    "The Llama 2 licence forbids to improve other large language models with it; not all models here are under it."
)


@dataclass(frozen=True)
class _Llama:
    """What a Llama licence asks for, in sections 1.b of the texts at https://www.llama.com/license/ and its siblings.

    Attributes:
        title: The model as its notice names it.
        built_with: The sentence to display; None if the licence asks for none.
        start: How the name of a derived model must begin.
    """

    title: str
    built_with: str | None = None
    start: str = ""


_LLAMAS = {
    "llama2": _Llama("Llama 2"),
    "llama3": _Llama("Meta Llama 3", "Built with Meta Llama 3.", "Llama 3"),
    "llama3.1": _Llama("Llama 3.1", "Built with Llama.", "Llama"),
    "llama3.2": _Llama("Llama 3.2", "Built with Llama.", "Llama"),
    "llama3.3": _Llama("Llama 3.3", "Built with Llama.", "Llama"),
    "llama4": _Llama("Llama 4", "Built with Llama.", "Llama"),
}


def notices_for(labels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Returns the duties of a merge, whole sentences.

    Args:
        labels: The models of each licence id, in order of appearance.
    """
    notices: list[str] = []
    for licence, models in labels.items():
        if licence in _LLAMAS:
            notices += _llama_notices(_LLAMAS[licence])
        elif licence == "gemma":
            notices.append(_GEMMA)
        elif "rail" in licence:
            notices.append(f"The use restrictions of {licence} bind every user of this model.")
        elif family_of(licence) in _CREDIT:
            notices.append(f"{licence} asks for credit to the authors of {abridged(models)}.")
    return tuple(notices)


def warnings_for(licences: Collection[str], *, repo_id: str | None) -> tuple[str, ...]:
    """Returns what the publisher of a merge should put right or know, whole sentences.

    Args:
        licences: The ids of all licences in it.
        repo_id: The merge's id; None if it has none yet, and then its name is not checked.
    """
    llamas = [_LLAMAS[licence] for licence in licences if licence in _LLAMAS]
    name = "" if repo_id is None else repo_id.split("/")[-1]
    misnamed = [llama for llama in llamas if name and not _begins(name, llama.start)]
    sentences = [
        f'The {llama.title} licence asks that the name of the model begin with "{llama.start}".' for llama in misnamed
    ]
    return (*sentences, _LLAMA_MIXED) if "llama2" in licences and len(licences) > 1 else tuple(sentences)


def abridged(labels: Sequence[str]) -> str:
    """Returns "a, b and c", or of many names the first ones and the number of the others."""
    if len(labels) > SHOWN_NAMES:
        rest = len(labels) - SHOWN_NAMES + 1
        labels = [*labels[: SHOWN_NAMES - 1], f"{rest} others"]
    return " and ".join(filter(None, (", ".join(labels[:-1]), labels[-1])))


def _llama_notices(llama: _Llama) -> list[str]:
    notices = [_LLAMA_COPYRIGHT.format(llama.title)]
    return notices if llama.built_with is None else [*notices, llama.built_with]


def _begins(name: str, start: str) -> bool:
    return name.replace("-", " ").replace("_", " ").lower().startswith(start.lower())
