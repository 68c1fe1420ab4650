"""The small files beside weights and config.json: the donor's, with the tokenizer and the template of the plan."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hubmerge.errors import SourceError
from hubmerge.merge.planned import PlannedTokenizer
from hubmerge.tokenizer import TOKENIZER_FILES, Tokenizer, read_tokenizer
from hubmerge.tokenizer.read import BACKEND_FILE, CONFIG_FILE, SLOW_FILES, TEMPLATE_FILE, TEMPLATE_FILES
from hubmerge.tokenizer.renumber import renumbered, translation
from hubmerge.weights.checkpoint import Checkpoint
from hubmerge.weights.files import Files, read_small

SMALL_FILE_BYTES = 64 << 20
"""The largest tokenizer.json files have about 35 MB."""

GENERATION_FILE = "generation_config.json"

OTHER_FILES = (GENERATION_FILE, "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""With the tokenizer's, what transformers writes beside weights and config.json: no code, and nothing that describes
the old weights."""


def side_files(tokenizer: PlannedTokenizer, donor: int, checkpoints: Sequence[Checkpoint]) -> Mapping[str, bytes]:
    """Returns the tokenizer, template, generation and processor files of a merge.

    Args:
        tokenizer: The result's.
        donor: Number of the parent that gives what is not the tokenizer's.
        checkpoints: The parents.

    Raises:
        SourceError: One is too large to be such a file, or no JSON.
        TransferError: One did not arrive.
    """
    owner = tokenizer.parents[0]
    files = _read(checkpoints[donor].files, OTHER_FILES)
    if owner != donor and GENERATION_FILE in files:
        files[GENERATION_FILE] = _generation_config(files[GENERATION_FILE], tokenizer, donor, checkpoints)
    files |= _read(checkpoints[owner].files, TOKENIZER_FILES)
    if tokenizer.built is not None:
        files = _with_vocabulary(files, tokenizer.built)
    if tokenizer.chat_template is not None:
        files = _with_template(files, tokenizer.chat_template)
    return dict(sorted(files.items()))


def _read(files: Files, patterns: Iterable[str]) -> dict[str, bytes]:
    names = (name for name in files.entries() if _matches(name, patterns))
    return {name: read_small(files, name, limit_bytes=SMALL_FILE_BYTES) for name in names}


def _with_vocabulary(files: Mapping[str, bytes], built: Tokenizer) -> dict[str, bytes]:
    """Returns the files with another tokenizer.json, and without those that hold the old vocabulary."""
    kept = {name: content for name, content in files.items() if not _matches(name, SLOW_FILES)}
    kept[BACKEND_FILE] = _json(built.data)
    if CONFIG_FILE in kept:
        kept[CONFIG_FILE] = _json(built.config)
    return kept


def _with_template(files: Mapping[str, bytes], template: str) -> dict[str, bytes]:
    """Returns the files with one template, where transformers looks for it first, and without any other."""
    kept = {name: content for name, content in files.items() if not _matches(name, TEMPLATE_FILES)}
    if CONFIG_FILE in kept:
        config = {key: value for key, value in _members(kept[CONFIG_FILE]).items() if key != "chat_template"}
        kept[CONFIG_FILE] = _json(config)
    return {**kept, TEMPLATE_FILE: template.encode()}


def _generation_config(
    content: bytes, tokenizer: PlannedTokenizer, donor: int, checkpoints: Sequence[Checkpoint]
) -> bytes:
    """Returns the donor's generation_config.json with the ids of another parent's vocabulary; that one's own hold."""
    owner = checkpoints[tokenizer.parents[0]]
    own = _read(owner.files, (GENERATION_FILE,)).get(GENERATION_FILE)
    stated = {**owner.config, **(_members(own) if own else {})}
    old = read_tokenizer(checkpoints[donor].files)
    new = tokenizer.built or read_tokenizer(owner.files)
    translate = translation(old.ids if old else {}, new.ids if new else {})
    config = renumbered(_members(content), stated, translate)
    return _json({key: value for key, value in config.items() if value is not None})


def _members(content: bytes) -> dict[str, Any]:
    try:
        members = json.loads(content)
    except ValueError as error:
        raise SourceError(f"a parent's file is not JSON: {error}") from None
    if not isinstance(members, dict):
        raise SourceError("a parent's file is not a JSON object")
    return members


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
