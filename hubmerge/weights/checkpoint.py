"""A checkpoint or an adapter without its data: the pinned commit, its config, and where every tensor lies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from hubmerge.errors import HeaderError, HubmergeError, SourceError
from hubmerge.weights.files import Files, entry_of
from hubmerge.weights.front_matter import parse_front_matter
from hubmerge.weights.header import Header, TensorInfo, header_length, parse_header
from hubmerge.weights.json_files import read_json_object
from hubmerge.weights.lora_config import parse_lora_config
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.shard_index import ADAPTER_FILE, ShardIndex, abbreviated, find_shards
from hubmerge.weights.snapshot import Snapshot, open_snapshot
from hubmerge.weights.unsupported import check_not_quantized, no_adapter_error, no_config_error, no_weights_error

DEFAULT_BRANCH = "main"
CONFIG_FILE = "config.json"
ADAPTER_CONFIG_FILE = "adapter_config.json"
CARD_FILE = "README.md"

CONFIG_LIMIT_BYTES = 10_000_000
CARD_LIMIT_BYTES = 10_000_000

FIRST_READ_BYTES = 100_000
"""Read of each shard at once; the header of an 8-billion-parameter model's shard has about 10 kB."""

HEADER_READERS = 8
"""Requests for headers of one checkpoint at the same time."""


@dataclass(frozen=True)
class SourceTensor:
    """A tensor and the file that holds it."""

    file: str
    info: TensorInfo


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a model, or of an adapter, before one byte of its weights is read.

    Attributes:
        ref: As the recipe names it.
        sha: The commit that `files` reads from; None for a folder.
        config: config.json; of an adapter its adapter_config.json.
        tensors: By name, in the order of the files and of the data in them.
        card: Front matter of README.md; empty if there is none.
        gated: Readers have to accept terms first.
        notes: What the reader should know about these files, one sentence each.
        adapter: The adapter that `ref` puts on the model; nothing else here knows of it.
    """

    ref: ModelRef
    sha: str | None
    files: Files
    config: Mapping[str, Any]
    tensors: Mapping[str, SourceTensor]
    card: Mapping[str, Any]
    gated: bool
    private: bool
    notes: tuple[str, ...] = ()
    adapter: Checkpoint | None = None


ParentKey = tuple[ModelRef, bool]
"""A model or adapter by itself, and whether it is an adapter: one repo may serve as either."""


def open_checkpoint(ref: ModelRef, *, token: str | bool | None = None) -> Checkpoint:
    """Returns the model behind a reference, its commit pinned; `files` is open and the caller's to close.

    The reference's adapter is not looked at.

    Args:
        ref: Which model.
        token: As huggingface_hub takes it: None is the stored token if there is one, False is none.

    Raises:
        SourceError: There is no such model, it may not be read, or its weights cannot be merged.
        TransferError: The Hub does not answer.
    """
    return _open(ref, _read_checkpoint, token=token)


def open_adapter(ref: ModelRef, *, token: str | bool | None = None) -> Checkpoint:
    """Returns the LoRA adapter behind a reference, as `open_checkpoint` does a model.

    Raises:
        SourceError: There is no such adapter, it may not be read, or it cannot be folded into weights.
        TransferError: The Hub does not answer.
    """
    return _open(ref, adapter_in, token=token)


def open_checkpoints(
    refs: Iterable[ModelRef], *, token: str | bool | None = None, workers: int = 8
) -> dict[ModelRef, Checkpoint]:
    """Returns the checkpoints of all references, in their order, each with its adapter.

    A repo that several references name is opened once, so that they agree on its commit.

    Raises:
        SourceError: Some cannot be used; lists every one of them.
    """
    distinct = list(dict.fromkeys(refs))
    keys = list(dict.fromkeys(key for ref in distinct for key in _opened_for(ref)))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        outcomes = dict(zip(keys, pool.map(lambda key: _try_to_open(key, token=token), keys), strict=True))
    opened = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, Checkpoint)}
    errors = [outcome for outcome in outcomes.values() if isinstance(outcome, HubmergeError)]
    if errors:
        for checkpoint in opened.values():
            checkpoint.files.close()
        raise _joined(errors)
    return {ref: _assembled(ref, [opened[key] for key in _opened_for(ref)]) for ref in distinct}


def parent_checkpoints(checkpoints: Iterable[Checkpoint]) -> dict[ParentKey, Checkpoint]:
    """Returns every model and every adapter once, in order: what a merge reads from."""
    parents: dict[ParentKey, Checkpoint] = {}
    for checkpoint in checkpoints:
        alone = checkpoint.ref.without_adapter
        parents.setdefault((alone, False), replace(checkpoint, ref=alone, adapter=None))
        if checkpoint.adapter is not None:
            parents.setdefault((checkpoint.adapter.ref, True), checkpoint.adapter)
    return parents


def read_header(files: Files, path: str) -> Header:
    """Returns the header of a safetensors file: one read, two if it is long.

    Raises:
        HeaderError: It is broken; the message begins with the file.
    """
    file_size = entry_of(files, path).size_bytes
    raw = files.read(path, 0, min(FIRST_READ_BYTES, file_size))
    try:
        length = header_length(raw, file_size=file_size)
        raw += files.read(path, len(raw), max(length, len(raw)))
        return parse_header(raw, file_size=file_size)
    except HeaderError as error:
        raise HeaderError(f"{files.label}/{path}: {error}") from None


def _open(ref: ModelRef, read: Callable[[ModelRef, Snapshot], Checkpoint], *, token: str | bool | None) -> Checkpoint:
    snapshot = open_snapshot(ref, token=token)
    try:
        return read(ref, snapshot)
    except BaseException:
        snapshot.files.close()
        raise


def _opened_for(ref: ModelRef) -> list[ParentKey]:
    """Returns what has to be opened for a reference: the model, and the adapter if there is one."""
    model = (_definite(ref.without_adapter), False)
    return [model] if ref.adapter is None else [model, (_definite(ref.adapter), True)]


def _definite(ref: ModelRef) -> ModelRef:
    """Returns the same for all references that mean the same commit, whether or not they spell out the branch."""
    return ref if ref.is_local else replace(ref, revision=ref.revision or DEFAULT_BRANCH)


def _assembled(ref: ModelRef, opened: list[Checkpoint]) -> Checkpoint:
    model, *adapters = opened
    adapter = replace(adapters[0], ref=ref.adapter) if ref.adapter is not None else None
    return replace(model, ref=ref, adapter=adapter)


def _try_to_open(key: ParentKey, *, token: str | bool | None) -> Checkpoint | HubmergeError:
    ref, is_adapter = key
    try:
        return open_adapter(ref, token=token) if is_adapter else open_checkpoint(ref, token=token)
    except HubmergeError as error:
        return error


def _joined(errors: list[HubmergeError]) -> HubmergeError:
    sentences = dict.fromkeys(f"  - {error}" + (f" ({error.hint})" if error.hint else "") for error in errors)
    if len(sentences) == 1:
        return errors[0]
    lines = "\n".join(sentences)
    return SourceError(f"{len(errors)} models cannot be used:\n{lines}")


def _read_checkpoint(ref: ModelRef, snapshot: Snapshot) -> Checkpoint:
    files = snapshot.files
    config = _read_config(files)
    index = find_shards(files)
    if not index.files:
        raise no_weights_error(files.label, files.entries())
    with ThreadPoolExecutor(max_workers=HEADER_READERS) as pool:
        card = pool.submit(_read_card, files)
        headers = dict(zip(index.files, pool.map(lambda path: read_header(files, path), index.files), strict=True))
        tensors, stray_notes = _place_tensors(files.label, index, headers)
        check_not_quantized(files.label, config, (tensor.info for tensor in tensors.values()))
        return Checkpoint(
            ref=ref,
            sha=snapshot.sha,
            files=files,
            config=config,
            tensors=tensors,
            card=card.result(),
            gated=snapshot.gated,
            private=snapshot.private,
            notes=index.notes + stray_notes,
        )


def adapter_in(ref: ModelRef, snapshot: Snapshot) -> Checkpoint:
    """Returns the LoRA adapter in files that are open already; they stay the caller's.

    Raises:
        SourceError: There is none, or it cannot be folded into weights.
    """
    files = snapshot.files
    if not {ADAPTER_CONFIG_FILE, ADAPTER_FILE} <= files.entries().keys():
        raise no_adapter_error(files.label, files.entries())
    config = read_json_object(files, ADAPTER_CONFIG_FILE, limit_bytes=CONFIG_LIMIT_BYTES)
    parse_lora_config(config, label=files.label)
    tensors = read_header(files, ADAPTER_FILE).tensors
    check_not_quantized(files.label, {}, tensors)
    return Checkpoint(
        ref=ref,
        sha=snapshot.sha,
        files=files,
        config=config,
        tensors={info.name: SourceTensor(ADAPTER_FILE, info) for info in tensors},
        card=_read_card(files),
        gated=snapshot.gated,
        private=snapshot.private,
    )


def _read_config(files: Files) -> Mapping[str, Any]:
    if CONFIG_FILE not in files.entries():
        raise no_config_error(files.label, files.entries())
    return read_json_object(files, CONFIG_FILE, limit_bytes=CONFIG_LIMIT_BYTES)


def _read_card(files: Files) -> Mapping[str, Any]:
    entry = files.entries().get(CARD_FILE)
    if entry is None or entry.size_bytes > CARD_LIMIT_BYTES:
        return {}
    return parse_front_matter(files.read(CARD_FILE, 0, entry.size_bytes))


def _place_tensors(
    label: str, index: ShardIndex, headers: Mapping[str, Header]
) -> tuple[dict[str, SourceTensor], tuple[str, ...]]:
    """Returns the tensors by name, each from the file that the index names, and what is odd about them."""
    placed: dict[str, SourceTensor] = {}
    strays: list[str] = []
    for file, header in headers.items():
        for info in header.tensors:
            home = index.weight_map.get(info.name, file)
            if home != file:
                continue
            if info.name in placed:
                raise SourceError(f"{label} has the tensor {info.name} in {placed[info.name].file} and in {file}")
            placed[info.name] = SourceTensor(file, info)
            if index.weight_map and info.name not in index.weight_map:
                strays.append(info.name)
    _check_complete(label, index, placed)
    return placed, _note_on_strays(label, strays)


def _check_complete(label: str, index: ShardIndex, placed: Mapping[str, SourceTensor]) -> None:
    missing = [name for name in index.weight_map if name not in placed]
    if missing:
        raise SourceError(f"{label} lacks tensors that its index names: {abbreviated(missing)}")


def _note_on_strays(label: str, strays: list[str]) -> tuple[str, ...]:
    if not strays:
        return ()
    return (f"{label} has tensors that its index does not name, merged all the same: {abbreviated(strays)}",)
