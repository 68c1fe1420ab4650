"""A proven model brought to its target: its shards, its adapter, and a card that tells how it was tuned."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubmerge.card.lock import LockedAdapter
from hubmerge.merge.describe import Target
from hubmerge.merge.documents import REPLACED_FILES, Documents, Tuned, model_files
from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.licensing import check_publishable
from hubmerge.merge.pipeline import OpenMerge, merge_documents
from hubmerge.merge.progress import Progress
from hubmerge.merge.side_files import side_files
from hubmerge.publish import FolderPublisher, HubPublisher, HubTarget, Published, Publisher, StagedShard
from hubmerge.trainer.settings import DpoSettings, Result
from hubmerge.trainer.story import ADAPTER_FOLDER, CURVES_FILE, Story, adapter_sha256, tuning_facts
from hubmerge.trainer.train import ADAPTER_FILES
from hubmerge.weights.checkpoint import DEFAULT_BRANCH
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.shard_index import INDEX_FILE
from hubmerge.weights.shards import FinishedShard, hash_file

RESULTS_FILE = "dpo.json"
"""Every number of the card, for programs."""


@dataclass(frozen=True)
class Finished:
    """A tuned model that may be published.

    Attributes:
        merge: Made its weights.
        told: Of the recipe that is published with it: the same, or that of the model itself where the adapter was added
            to what quantisation left of it.
        folder: Its weights; None where the adapter alone is published.
        adapter: Folder of the adapter.
    """

    merge: OpenMerge
    told: OpenMerge
    folder: Path | None
    adapter: Path
    story: Story


def publish(finished: Finished, result: Result, *, token: str | None, progress: Progress) -> Published:
    """Returns where the model is to be found; readers of a repo see all of it or nothing.

    Raises:
        LicenceError: The licences behind it do not settle its own.
        PublishError: The target cannot be written.
    """
    target = _target(result)
    tuned = _tuned(finished, result)
    documents = merge_documents(finished.told, target, tuned)
    if target.is_repo:
        check_publishable(documents.licence)
    publisher = _publisher(finished, result, token=token)
    try:
        staged = publisher.open()
        previous = {name: content for name in REPLACED_FILES if (content := publisher.existing(name)) is not None}
        for warning in documents.check(previous):
            progress.say(f"The Hub says of the model card: {warning}")
        shards = [_stage(path, publisher, staged) for path in _weights(finished)]
        files = _with_model_files(documents.files(shards, previous), finished)
        return publisher.publish(shards, files if finished.folder else _adapter_files(files, finished, documents))
    finally:
        publisher.close()


def _with_model_files(files: Mapping[str, bytes], finished: Finished) -> dict[str, bytes]:
    """Returns the files with config and index of the weights that were made."""
    others = {name: content for name, content in files.items() if name != INDEX_FILE}
    return {**others, **model_files(finished.merge.plan)}


def _target(result: Result) -> Target:
    if result.push_to is not None:
        return Target(result.push_to, is_repo=True)
    assert result.folder is not None
    return Target(result.folder, is_repo=False)


def _publisher(finished: Finished, result: Result, *, token: str | None) -> Publisher:
    # Another adapter is other weights, even where the recipe and the sizes of all files are the same.
    identity = adapter_sha256(finished.adapter)[:32] + fingerprint(finished.merge.plan)[:32]
    if result.push_to is None:
        assert result.folder is not None
        return FolderPublisher(Path(result.folder), fingerprint=identity)
    hub = HubTarget(
        result.push_to,
        f"Tune with DPO on {', '.join(data.name for data in finished.story.data)}",
        revision=result.revision or DEFAULT_BRANCH,
        private=result.private or None,
        create_pr=result.create_pr,
    )
    return HubPublisher(hub, fingerprint=identity, token=token)


def _weights(finished: Finished) -> list[Path]:
    if finished.folder is None:
        return [finished.adapter / ADAPTER_FILES[0]]
    return [finished.folder / shard.filename for shard in finished.merge.plan.shards]


def _stage(path: Path, publisher: Publisher, staged: Mapping[str, StagedShard]) -> StagedShard:
    """Brings a file to the target unless an earlier run did; what is kept here stays."""
    size, sha256 = path.stat().st_size, hash_file(path)
    arrived = staged.get(path.name)
    if arrived is not None and (arrived.size_bytes, arrived.sha256) == (size, sha256):
        return arrived
    copy = publisher.workspace / path.name
    copy.unlink(missing_ok=True)
    try:
        os.link(path, copy)
    except OSError:  # another file system
        shutil.copyfile(path, copy)
    return publisher.stage(FinishedShard(copy, size, sha256))


def _tuned(finished: Finished, result: Result) -> Tuned:
    settings, story = finished.story.settings, finished.story
    alone = finished.folder is None
    with_adapter = result.publish != "model"
    path = ADAPTER_FILES[0] if alone else f"{ADAPTER_FOLDER}/{ADAPTER_FILES[0]}" if with_adapter else None
    facts = tuning_facts(story, finished.told, finished.adapter, adapter_path=path, is_adapter=alone)
    files = {RESULTS_FILE: _json(story.as_data()), **({CURVES_FILE: story.curves} if story.curves else {})}
    if with_adapter and not alone:
        files |= {f"{ADAPTER_FOLDER}/{name}": content for name, content in _adapter(finished)}
    return Tuned(
        facts=facts,
        adapter=ModelRef(str(finished.adapter.resolve())),
        published_as=f"./{ADAPTER_FOLDER}",
        locked=_locked(finished, settings, path),
        files=files,
    )


def _locked(finished: Finished, settings: DpoSettings, path: str | None) -> LockedAdapter:
    return LockedAdapter(
        path=path,
        sha256=adapter_sha256(finished.adapter),
        rounding=settings.result.round,
        fold_base=settings.result.fold_base,
    )


def _adapter(finished: Finished) -> Iterator[tuple[str, bytes]]:
    for name in ADAPTER_FILES:
        content = (finished.adapter / name).read_bytes()
        yield name, _public_config(content, finished) if name.endswith(".json") else content


def _public_config(content: bytes, finished: Finished) -> bytes:
    """Returns adapter_config.json without the folder that it was trained in."""
    config = json.loads(content)
    parents = finished.told.plan.parents
    hub = [parent for parent in parents if not parent.ref.is_local]
    alone = len(hub) == 1 and len(parents) == 2 and not finished.story.is_merge
    config["base_model_name_or_path"] = hub[0].ref.path if alone else None
    config["revision"] = hub[0].sha if alone else None
    return _json(config)


def _adapter_files(files: Mapping[str, bytes], finished: Finished, documents: Documents) -> dict[str, bytes]:
    """Returns what stands beside an adapter that is published alone: nothing of a whole model's files."""
    checkpoints = documents.checkpoints
    tokenizer = side_files(documents.plan.tokenizer, documents.plan.donor, checkpoints)
    kept = {name: content for name, content in tokenizer.items() if "token" in name or "template" in name}
    own = ("README.md", "LICENSE.md", RESULTS_FILE, CURVES_FILE)
    config = {name: content for name, content in _adapter(finished) if name.endswith(".json")}
    return {**kept, **{name: files[name] for name in own if name in files}, **config}


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
