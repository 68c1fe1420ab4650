"""Data sets → pairs to train on and pairs held out: columns found, bad rows left out, the same on every machine."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hubmerge.errors import DataError
from hubmerge.trainer.dataset_source import OpenedDataset, all_rows, first_rows
from hubmerge.trainer.pairs import PARTS, BadRow, is_conversation, key_of, pair_of
from hubmerge.trainer.presets import PRESETS, Preset, preset_for
from hubmerge.trainer.settings import DatasetSource, Evaluation

if TYPE_CHECKING:
    from datasets import Dataset, Features

SAMPLE_ROWS = 500
"""Looked at before a data set is downloaded: enough for lengths to within a few per cent."""

NOT_ADVISED = "left out as its makers advise"
REPEATED = "the same pair again"

_USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("question", "instruction", "input", "query", "messages"),
    "chosen": ("accepted", "preferred", "winner", "response_w", "answer_good", "positive"),
    "rejected": ("dispreferred", "loser", "response_l", "answer_bad", "negative"),
}


@dataclass(frozen=True)
class Sample:
    """The first pairs of a data set, and what was wrong with the other first rows.

    Attributes:
        problems: Reason -> number of rows.
        notes: What to know of this data set.
    """

    opened: OpenedDataset
    pairs: tuple[dict[str, Any], ...]
    rows: int
    problems: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Preferences:
    """All pairs, as `prompt`, `chosen` and `rejected`.

    Attributes:
        train: In the order of the interleaved data sets.
        held_out: Their prompts are not in `train`.
        problems: By data set: reason -> number of rows that were left out.
        contradictions: Pairs whose answers stand the other way round elsewhere.
    """

    train: Dataset
    held_out: Dataset
    problems: Mapping[str, Mapping[str, int]]
    contradictions: int


def left_out(preferences: Preferences) -> Iterator[str]:
    """Yields which rows of which data set are not used, and what the used ones say against each other."""
    for name, problems in preferences.problems.items():
        yield from (f"{name}: left out {count:,} of its rows: {reason}" for reason, count in problems.items())
    if preferences.contradictions:
        yield f"{preferences.contradictions:,} pairs stand the other way round elsewhere in the data"


def sample(opened: OpenedDataset, *, chat: bool, token: str | bool | None = None) -> Sample:
    """Returns the first pairs of a data set without downloading it.

    `chat` is whether plain text is what a user and an assistant say, which a model with a chat template needs.

    Raises:
        DataError: It has no such columns, or no row of it is a preference.
    """
    rows = first_rows(opened, SAMPLE_ROWS, token=token)
    if not rows:
        raise DataError(f"{opened.source.path} has no rows in the split {opened.split}")
    preset = known_preset(opened.source)
    columns = find_columns(opened.source, rows[0].keys())
    pairs, problems = [], Counter[str]()
    for row in rows:
        pair, problem = _try_pair(row, columns, preset, chat=chat)
        problems.update([problem] if problem else [])
        pairs += [pair] if pair is not None else []
    if not pairs:
        raise _no_pairs(opened.source, problems)
    return Sample(opened, tuple(pairs), len(rows), problems, preset.notes)


def known_preset(source: DatasetSource) -> Preset:
    """Returns what is known of a data set's columns.

    Raises:
        DataError: The preset that it names does not exist.
    """
    if source.preset is not None and source.preset not in PRESETS:
        close = difflib.get_close_matches(source.preset, PRESETS, n=1, cutoff=0.4)
        guess = f"; did you mean {close[0]}?" if close else ""
        raise DataError(f"no preset is called {source.preset}{guess}", hint=f"There are {', '.join(PRESETS)}.")
    return preset_for(source.path, source.preset)


def find_columns(source: DatasetSource, present: Collection[str]) -> dict[str, str]:
    """Returns our names -> the data set's columns.

    Raises:
        DataError: A column is missing; the hint proposes a mapping.
    """
    columns = {**known_preset(source).columns, **source.columns}
    unknown = sorted(set(columns) - {*PARTS, "system"})
    if unknown:
        raise DataError(f"{source.path}: a columns mapping has prompt, chosen, rejected and system, not {unknown[0]}")
    missing = [part for part, column in columns.items() if column not in present and part in ("chosen", "rejected")]
    missing += [part for part in source.columns if columns[part] not in present and part not in missing]
    if missing:
        raise _missing_columns(source, {part: columns[part] for part in missing}, present)
    return {part: column for part, column in columns.items() if column in present}


def load_preferences(
    opened: Sequence[OpenedDataset], evaluation: Evaluation, *, chat: bool, token: str | bool | None = None
) -> Preferences:
    """Returns all pairs of the data sets, those for training and those held out.

    A pair that comes twice is taken once. Which pairs are held out depends on nothing but their content.

    Raises:
        DataError: A data set cannot be read or used, or conversations and plain text would be mixed.
    """
    from datasets import concatenate_datasets, disable_progress_bars

    disable_progress_bars()
    parts = [_normalised(each, chat=chat, token=token) for each in opened]
    _check_same_form(opened, parts)
    seen: set[str] = set()
    problems, chosen_rows = {}, []
    for each, rows in zip(opened, parts, strict=True):
        counts, keep = _usable(rows, seen)
        problems[str(each.source)] = counts
        if not keep:
            raise _no_pairs(each.source, counts)
        chosen_rows.append(rows.select(_weighted(rows, keep, each.source.weight)))
    together = concatenate_datasets(chosen_rows).select(_interleaved([len(rows) for rows in chosen_rows]))
    held = held_out_keys(together["prompt_key"], share=evaluation.holdout, most=evaluation.max_pairs)
    keys = list(together["prompt_key"])
    return Preferences(
        train=_only(together, [row for row, key in enumerate(keys) if key not in held]),
        held_out=_only(together, _once(together, [row for row, key in enumerate(keys) if key in held])),
        problems=problems,
        contradictions=_contradictions(together),
    )


def held_out_keys(prompt_keys: Iterable[str], *, share: float, most: int) -> set[str]:
    """Returns the prompts, by SHA-256, whose pairs are held out: those of the smallest keys.

    At least one pair is held out where `share` is not 0 and there are two prompts; one prompt is never on both sides.
    """
    counts = Counter(prompt_keys)
    wanted = min(most, round(share * counts.total())) or (1 if share > 0 and len(counts) > 1 else 0)
    held: set[str] = set()
    for key in sorted(counts):
        if wanted <= 0 or len(held) + 1 == len(counts):
            break
        held.add(key)
        wanted -= counts[key]
    return held


def _normalised(opened: OpenedDataset, *, chat: bool, token: str | bool | None) -> Dataset:
    """Returns the rows of a data set as pairs with their keys and, where a row is none, the problem."""
    rows = all_rows(opened, token=token)
    preset = known_preset(opened.source)
    columns = find_columns(opened.source, rows.column_names)
    first = next((pair for row in rows if (pair := _try_pair(row, columns, preset, chat=chat)[0])), None)
    if first is None:
        raise DataError(f"no row of {opened.source.path} is a preference")
    wanted = {*columns.values(), *(column for column in preset.keep if column in rows.column_names)}
    rows = rows.select_columns(sorted(wanted))
    conversation = is_conversation(first)
    make = partial(_row_of, columns=columns, preset=preset, chat=chat, conversation=conversation)
    return rows.map(make, remove_columns=rows.column_names, features=_features(conversation=conversation))


def _row_of(
    row: Mapping[str, Any], columns: Mapping[str, str], preset: Preset, chat: bool, conversation: bool
) -> dict[str, Any]:
    pair, problem = _try_pair(row, columns, preset, chat=chat)
    if pair is not None and is_conversation(pair) != conversation:
        pair, problem = None, "conversations and plain text are mixed"
    if pair is None:
        empty: Any = [] if conversation else ""
        return {**dict.fromkeys(PARTS, empty), "pair_key": "", "swapped_key": "", "prompt_key": "", "problem": problem}
    swapped = {"prompt": pair["prompt"], "chosen": pair["rejected"], "rejected": pair["chosen"]}
    keys = {"pair_key": key_of(pair), "swapped_key": key_of(swapped), "prompt_key": key_of(pair["prompt"])}
    return {**pair, **keys, "problem": ""}


def _try_pair(
    row: Mapping[str, Any], columns: Mapping[str, str], preset: Preset, *, chat: bool
) -> tuple[dict[str, Any] | None, str]:
    if not preset.keeps(row):
        return None, NOT_ADVISED
    try:
        return pair_of(row, columns, chat=chat), ""
    except BadRow as error:
        return None, str(error)


def _features(*, conversation: bool) -> Features:
    from datasets import Features, List, Value

    part: Any = List({"role": Value("string"), "content": Value("string")}) if conversation else Value("string")
    text = Value("string")
    keys = dict.fromkeys(("pair_key", "swapped_key", "prompt_key", "problem"), text)
    return Features({**dict.fromkeys(PARTS, part), **keys})


def _usable(rows: Dataset, seen: set[str]) -> tuple[Counter[str], list[int]]:
    """Returns how many rows are left out for which reason, and the others' numbers; adds their keys to `seen`."""
    counts, keep = Counter[str](), []
    for number, (problem, key) in enumerate(zip(rows["problem"], rows["pair_key"], strict=True)):
        if problem or key in seen:
            counts[problem or REPEATED] += 1
        else:
            seen.add(key)
            keep.append(number)
    return counts, keep


def _weighted(rows: Dataset, keep: list[int], weight: float) -> list[int]:
    """Returns the numbers of the rows to use, a row as often as its data set's weight says."""
    whole, part = divmod(weight, 1.0)
    keys = rows["pair_key"]
    extra = [number for number in keep if int(keys[number][:12], 16) / 16**12 < part] if part else []
    return keep * int(whole) + extra or keep[:1]


def _interleaved(sizes: Sequence[int]) -> list[int]:
    """Returns row numbers of the data sets one after the other such that each is spread evenly over the whole."""
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    places = [
        ((row + 0.5) / size, start + row) for start, size in zip(starts, sizes, strict=True) for row in range(size)
    ]
    return [number for _, number in sorted(places)]


def _once(rows: Dataset, numbers: list[int]) -> list[int]:
    """Returns the numbers without pairs that a weight above 1 repeats."""
    keys = rows["pair_key"]
    return list({keys[number]: number for number in reversed(numbers)}.values())[::-1]


def _only(rows: Dataset, numbers: list[int]) -> Dataset:
    return rows.select(numbers).select_columns(list(PARTS))


def _contradictions(rows: Dataset) -> int:
    keys = set(rows["pair_key"])
    return sum(key in keys for key in rows["swapped_key"])


def _check_same_form(opened: Sequence[OpenedDataset], parts: Sequence[Dataset]) -> None:
    from datasets import Value

    plain = [each for each, rows in zip(opened, parts, strict=True) if rows.features["prompt"] == Value("string")]
    if plain and len(plain) < len(parts):
        raise DataError(
            f"{plain[0].source.path} is plain text and others are conversations, which cannot be trained on together",
            hint="Give the model a chat template, so that plain text becomes messages.",
        )


def _no_pairs(source: DatasetSource, problems: Mapping[str, int]) -> DataError:
    reason, count = max(problems.items(), key=lambda item: item[1])
    return DataError(f"no row of {source.path} is a preference; of {count:,} it is said: {reason}")


def _missing_columns(source: DatasetSource, missing: Mapping[str, str], present: Collection[str]) -> DataError:
    guesses = {part: guess for part, column in missing.items() if (guess := _similar(part, column, present))}
    has = ", ".join(sorted(present))
    if guesses:
        mapping = ", ".join(f"{part}: {guess}" for part, guess in guesses.items())
        hint = f"Perhaps `columns: {{{mapping}}}`. It has {has}."
    else:
        hint = f"Say which of its columns is which: `columns: {{chosen: ..., rejected: ...}}`. It has {has}."
    return DataError(f"{source.path} has no column {' and no column '.join(missing.values())}", hint=hint)


def _similar(part: str, column: str, present: Collection[str]) -> str | None:
    names = {name.lower(): name for name in present}
    for usual in (column, part, *_USUAL_NAMES.get(part, ())):
        inside = next((name for low, name in names.items() if usual in low), None)
        close = difflib.get_close_matches(usual, names, n=1, cutoff=0.75)
        if inside or close:
            return inside or names[close[0]]
    return None
