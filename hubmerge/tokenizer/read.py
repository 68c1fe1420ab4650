"""A model's tokenizer as plain data: tokenizer.json and tokenizer_config.json, without the libraries that run it."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hubmerge.errors import SourceError
from hubmerge.weights.files import Files, read_small
from hubmerge.weights.json_files import read_json_object

BACKEND_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
LIMIT_BYTES = 64 << 20
"""The largest tokenizer.json files have about 35 MB."""

SLOW_FILES = (
    "tokenizer*.model",
    "*.tiktoken",
    "sentencepiece*.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
)
"""What holds the vocabulary beside or in place of tokenizer.json; only libraries of their own can read all of these."""

TEMPLATE_FILES = (TEMPLATE_FILE, "chat_template.json", "additional_chat_templates/*.jinja")
TOKENIZER_FILES = ("tokenizer*.json", "special_tokens_map.json", *SLOW_FILES, *TEMPLATE_FILES)
"""Every file of a tokenizer, as patterns."""

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
"""How an added token is found in a text, and whether decoding may leave it out; all false unless stated."""

AddedToken = Mapping[str, Any]


@dataclass(frozen=True)
class VocabularyKind:
    """What must be equal for the ordinary tokens of two tokenizers to mean the same pieces of text.

    Attributes:
        algorithm: BPE, Unigram, WordPiece or WordLevel.
        by_bytes: Whether tokens spell bytes in the alphabet of GPT-2, where a space is `Ġ`.
    """

    algorithm: str
    by_bytes: bool

    def __str__(self) -> str:
        return f"byte-level {self.algorithm}" if self.by_bytes else self.algorithm


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer.

    Attributes:
        label: What messages call the model that it belongs to.
        backend: tokenizer.json; None if the model has only files that need a library of their own.
        config: tokenizer_config.json; empty if there is none.
        chat_template: The template that is used when none is named.
        digest: Of the files that decide the ids; equal digests mean equal tokenizers.
    """

    label: str
    backend: Mapping[str, Any] | None
    config: Mapping[str, Any]
    chat_template: str | None
    digest: str

    @property
    def data(self) -> Mapping[str, Any]:
        """tokenizer.json.

        Raises:
            SourceError: There is none.
        """
        if self.backend is None:
            raise SourceError(
                f"{self.label} has no tokenizer.json, and its vocabulary cannot be compared with others without one",
                hint="Convert it once, and put the files that this writes beside the weights: "
                "transformers.AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)",
            )
        return self.backend

    @cached_property
    def kind(self) -> VocabularyKind:
        """What its ordinary tokens are pieces of."""
        parts = _components(self.data.get("pre_tokenizer")), _components(self.data.get("decoder"))
        return VocabularyKind(self.data["model"]["type"], any(part == "ByteLevel" for part in (*parts[0], *parts[1])))

    @cached_property
    def added(self) -> Mapping[str, AddedToken]:
        """Tokens that are cut out of a text before it is split, by their content, in the order of their ids."""
        stated = [(entry["content"], entry) for entry in self.data.get("added_tokens") or ()]
        decoder = self.config.get("added_tokens_decoder") or {}
        later = [(entry["content"], entry) for _, entry in sorted(decoder.items(), key=lambda item: int(item[0]))]
        entries = dict(later) | dict(stated)
        order = dict.fromkeys(content for content, _ in (*stated, *later))
        return {content: {flag: bool(entries[content].get(flag)) for flag in FLAGS} for content in order}

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """Every token and its id, in the order of ids.

        Added tokens that the model's own vocabulary lacks are numbered behind it, as the `tokenizers` library does,
        whatever id the file states.
        """
        ids = dict(ordinary_ids(self.data["model"]))
        size, following = len(ids), len(ids)
        for content in self.added:
            following = max(following, ids.setdefault(content, max(size, following)) + 1)
        return dict(sorted(ids.items(), key=lambda item: item[1]))


def read_tokenizer(files: Files) -> Tokenizer | None:
    """Returns the tokenizer of a model, or None if it has none.

    Raises:
        SourceError: A file of it is broken.
        TransferError: One did not arrive.
    """
    names = files.entries()
    slow = [name for name in names if _is_one_of(name, SLOW_FILES)]
    if BACKEND_FILE not in names and not slow:
        return None
    backend = _backend(files) if BACKEND_FILE in names else None
    config = read_json_object(files, CONFIG_FILE, limit_bytes=LIMIT_BYTES) if CONFIG_FILE in names else {}
    identity = [BACKEND_FILE] if backend is not None else slow
    return Tokenizer(files.label, backend, config, _template(files, config), _digest(files, identity))


def vocabulary_identity(files: Files) -> str | None:
    """Returns what is equal for equal vocabularies, known without reading; None on disk and where there is none."""
    entries = files.entries()
    names = [name for name in sorted(entries) if name == BACKEND_FILE or _is_one_of(name, SLOW_FILES)]
    hashes = [entry.sha256 or entry.blob_id for name in names if (entry := entries[name])]
    if not names or None in hashes:
        return None
    return " ".join(f"{name}={known}" for name, known in zip(names, hashes, strict=True))


def ordinary_ids(model: Mapping[str, Any]) -> Mapping[str, int]:
    """Returns the vocabulary of the `model` in a tokenizer.json, which a Unigram model states as a list with scores."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, Mapping):
        return vocabulary
    return {token: row for row, (token, _) in enumerate(vocabulary)}


def _backend(files: Files) -> Mapping[str, Any]:
    backend = read_json_object(files, BACKEND_FILE, limit_bytes=LIMIT_BYTES)
    model = backend.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise SourceError(f"{files.label}/{BACKEND_FILE} has no vocabulary")
    model.setdefault("type", _algorithm(model))
    return backend


def _algorithm(model: Mapping[str, Any]) -> str:
    """Returns the algorithm of a file so old that it does not name it."""
    if isinstance(model["vocab"], list):
        return "Unigram"
    if "merges" in model:
        return "BPE"
    return "WordPiece" if "continuing_subword_prefix" in model else "WordLevel"


def _template(files: Files, config: Mapping[str, Any]) -> str | None:
    if TEMPLATE_FILE in files.entries():
        return read_small(files, TEMPLATE_FILE, limit_bytes=LIMIT_BYTES).decode(errors="replace")
    stated = config.get("chat_template")
    if isinstance(stated, list):
        return next((str(entry["template"]) for entry in stated if entry.get("name") == "default"), None)
    return stated if isinstance(stated, str) else None


def _digest(files: Files, names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        content = read_small(files, name, limit_bytes=LIMIT_BYTES)
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _components(part: Any) -> Iterator[str]:
    """Yields the types of a pre-tokenizer or decoder and of those that it is a sequence of."""
    if isinstance(part, Mapping):
        yield str(part.get("type"))
        for key in ("pretokenizers", "decoders"):
            for inner in part.get(key) or ():
                yield from _components(inner)


def _is_one_of(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
