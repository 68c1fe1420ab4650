"""The duties that come with a parent's licence: notices, credit and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hubmerge.card.licence_ids import Family, family_of

_CREDIT = (Family.ATTRIBUTION, Family.NONCOMMERCIAL, Family.SHARE_ALIKE, Family.NONCOMMERCIAL_SHARE_ALIKE)

_GEMMA = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms."
_LLAMA_COPYRIGHT = (
    "{0} is licensed under the {0} Community License, Copyright © Meta Platforms, Inc. All Rights Reserved."
)
_LLAMA_MIXED = (
    "The Llama 2 licence forbids to improve other large language models with it; not all parents are Llama 2."
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


def notices_for(labels: Mapping[str, Sequence[str]], *, repo_id: str | None) -> tuple[str, ...]:
    """Returns the duties of a merge, whole sentences.

    Args:
        labels: The parents of each licence id, in order of appearance.
        repo_id: The merge's id; None if it has none yet, and then its name is not checked.
    """
    notices: list[str] = []
    for licence, parents in labels.items():
        if licence in _LLAMAS:
            notices += _llama_notices(_LLAMAS[licence], repo_id)
        elif licence == "gemma":
            notices.append(_GEMMA)
        elif "rail" in licence:
            notices.append(f"The use restrictions of {licence} bind every user of this model.")
        elif family_of(licence) in _CREDIT:
            notices.append(f"{licence} asks for credit to the authors of {', '.join(parents)}.")
    if "llama2" in labels and len(labels) > 1:
        notices.append(_LLAMA_MIXED)
    return tuple(notices)


def _llama_notices(llama: _Llama, repo_id: str | None) -> list[str]:
    notices = [_LLAMA_COPYRIGHT.format(llama.title)]
    if llama.built_with is not None:
        notices.append(llama.built_with)
    if repo_id is not None and not _begins(repo_id.split("/")[-1], llama.start):
        notices.append(f'The {llama.title} licence asks that the name of the model begin with "{llama.start}".')
    return notices


def _begins(name: str, start: str) -> bool:
    return name.replace("-", " ").replace("_", " ").lower().startswith(start.lower())
