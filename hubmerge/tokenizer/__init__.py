"""Vocabularies: read as data, united, and aligned, so that rows of embeddings can be merged token by token."""

from __future__ import annotations

from hubmerge.tokenizer.read import TOKENIZER_FILES, Tokenizer, VocabularyKind, read_tokenizer, vocabulary_identity

__all__ = ["TOKENIZER_FILES", "Tokenizer", "VocabularyKind", "read_tokenizer", "vocabulary_identity"]
