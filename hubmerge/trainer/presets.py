"""Preference data sets that are known by name: their columns, which rows their makers advise, what to know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """How one data set says prompt, chosen and rejected.

    Attributes:
        columns: Our names (`prompt`, `chosen`, `rejected`, `system`) -> its columns. A conversation in `chosen` that
            begins with the prompt goes before the column `prompt`.
        keep: Column -> the values that a row may have there, or a least number; rows with others are left out.
        notes: What a reader of the result should know, one sentence each.
    """

    columns: Mapping[str, str]
    keep: Mapping[str, tuple[Any, ...] | float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def keeps(self, row: Mapping[str, Any]) -> bool:
        """Returns whether the makers advise to train on a row; a column that it lacks says nothing."""
        return all(_is_kept(row[column], wanted) for column, wanted in self.keep.items() if column in row)


def _is_kept(value: Any, wanted: tuple[Any, ...] | float) -> bool:
    if isinstance(wanted, tuple):
        return value in wanted
    try:
        return float(value) >= wanted
    except (TypeError, ValueError):
        return False


PLAIN = Preset({"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"})
_WITH_SYSTEM = {**PLAIN.columns, "system": "system"}
_HERMES = (
    "Its questions come from OpenHermes-2.5, which holds MetaMath (made from the train set of GSM8K) and SlimOrca "
    "(tasks of the FLAN collection)."
)
_ORCA = "Its questions come from OpenOrca, which answers tasks of the FLAN collection, some of them benchmarks."

PRESETS: Mapping[str, Preset] = {
    "Intel/orca_dpo_pairs": Preset(
        {**_WITH_SYSTEM, "prompt": "question"},
        notes=(_ORCA, "Which answer is preferred was set by the model that wrote it, not by a comparison."),
    ),
    "mlabonne/chatml_dpo_pairs": Preset(
        PLAIN.columns,
        notes=(_ORCA, "It is Intel/orca_dpo_pairs written as ChatML; the messages are taken out of that again."),
    ),
    "argilla/distilabel-intel-orca-dpo-pairs": Preset(
        {**_WITH_SYSTEM, "prompt": "input"},
        keep={"status": ("swapped", "unchanged"), "chosen_score": 8.0, "in_gsm8k_train": (False,)},
        notes=(
            _ORCA,
            "As its card advises, ties, chosen answers below 8 and questions of GSM8K's train set are left out.",
        ),
    ),
    "jondurbin/truthy-dpo-v0.1": Preset(
        _WITH_SYSTEM,
        notes=("It aims at common misconceptions, as TruthfulQA does, whose score of the result says less for it.",),
    ),
    "argilla/OpenHermes2.5-dpo-binarized-alpha": Preset(PLAIN.columns, notes=(_HERMES,)),
    "mlabonne/chatml-OpenHermes2.5-dpo-binarized-alpha": Preset(
        PLAIN.columns,
        notes=(
            _HERMES,
            "It is argilla/OpenHermes2.5-dpo-binarized-alpha in ChatML; the messages are taken out of that again.",
        ),
    ),
    "argilla/ultrafeedback-binarized-preferences-cleaned": Preset(
        PLAIN.columns, notes=("Prompts of TruthfulQA, which the original had, were removed by its makers.",)
    ),
    "HuggingFaceH4/ultrafeedback_binarized": Preset(
        PLAIN.columns,
        notes=("Its first versions held prompts of TruthfulQA; the later ones are said to be free of them.",),
    ),
}
"""By Hub id; a data set with other columns takes a `columns` mapping."""


def preset_for(path: str, name: str | None) -> Preset:
    """Returns the preset of that name, else that of the data set's id, else the plain one."""
    return PRESETS[name] if name is not None else PRESETS.get(path, PLAIN)
