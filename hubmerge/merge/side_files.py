"""The small files of a model, everything but its weights: which a merge takes over from its donor."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from hubmerge.weights.checkpoint import Checkpoint
from hubmerge.weights.files import read_small

SMALL_FILE_BYTES = 64 << 20
"""The largest tokenizer.json files have about 35 MB."""

PATTERNS = (
    "tokenizer*.json",
    "tokenizer*.model",
    "*.tiktoken",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "sentencepiece*.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
"""What transformers writes beside weights and config.json: no code, and nothing that describes the old weights."""


def donor_files(donor: Checkpoint) -> Mapping[str, bytes]:
    """Returns the tokenizer, template, generation and processor files of a model, as they are.

    Raises:
        SourceError: One is too large to be such a file.
        TransferError: One did not arrive.
    """
    names = [name for name in donor.files.entries() if any(fnmatch.fnmatchcase(name, pattern) for pattern in PATTERNS)]
    return {name: read_small(donor.files, name, limit_bytes=SMALL_FILE_BYTES) for name in names}
