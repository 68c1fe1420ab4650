"""One row of a data set → prompt, chosen and rejected, as TRL takes them: messages or text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, str]
Row = Mapping[str, Any]

PARTS = ("prompt", "chosen", "rejected")

_CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n?", re.DOTALL)
_OPEN_ANSWER = re.compile(r"<\|im_start\|>assistant\s*\Z")
_CHATML_END = "<|im_end|>"


class BadRow(ValueError):
    """A row that is no preference; says why in few words."""


def pair_of(row: Row, columns: Mapping[str, str], *, chat: bool) -> dict[str, Any]:
    """Returns a row's prompt, chosen and rejected: all lists of messages, or all text.

    Args:
        row: A row of the data set.
        columns: Our names -> its columns. `prompt` may be missing where the answers are conversations that have it.
        chat: Whether plain text is what a user and an assistant say; text in ChatML is taken apart in any case.

    Raises:
        BadRow: A part is missing or empty, or the two answers are the same.
    """
    given = {part: row.get(column) for part, column in columns.items()}
    if isinstance(given["chosen"], Sequence) and not isinstance(given["chosen"], str):
        pair = _from_conversations(given)
    elif _is_chatml(given.get("prompt")):
        pair = _from_chatml(given)
    else:
        pair = _from_text(given, chat=chat)
    for part in PARTS:
        if not _content(pair[part]).strip():
            raise BadRow(f"{part} is empty")
    if _content(pair["chosen"]) == _content(pair["rejected"]):
        raise BadRow("chosen and rejected are the same")
    return pair


def key_of(value: Any) -> str:
    """Returns the SHA-256 of a prompt or a whole pair, the same on every machine."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")).hexdigest()


def is_conversation(pair: Mapping[str, Any]) -> bool:
    """Returns whether a pair is made of messages."""
    return not isinstance(pair["prompt"], str)


def _from_conversations(given: Row) -> dict[str, Any]:
    chosen_prompt, chosen = _split(_messages(given["chosen"], "chosen"))
    rejected_prompt, rejected = _split(_messages(given["rejected"], "rejected"))
    if chosen_prompt and rejected_prompt and chosen_prompt != rejected_prompt:
        raise BadRow("chosen and rejected answer different prompts")
    prompt = chosen_prompt or rejected_prompt or _as_prompt(given.get("prompt"))
    return {"prompt": _with_system(prompt, given.get("system")), "chosen": chosen, "rejected": rejected}


def _from_chatml(given: Row) -> dict[str, Any]:
    prompt = [{"role": role, "content": content} for role, content in _CHATML.findall(given["prompt"])]
    answers = {part: _assistant(_text(given, part).split(_CHATML_END)[0]) for part in ("chosen", "rejected")}
    if not _OPEN_ANSWER.search(given["prompt"]) and (not prompt or prompt[-1]["role"] != "user"):
        raise BadRow("the prompt does not end where the assistant answers")
    return {"prompt": prompt, **answers}


def _from_text(given: Row, *, chat: bool) -> dict[str, Any]:
    chosen, rejected = _text(given, "chosen"), _text(given, "rejected")
    prompt = given.get("prompt")
    if chat or not isinstance(prompt, str):
        asked = _with_system(_as_prompt(prompt), given.get("system"))
        return {"prompt": asked, "chosen": _assistant(chosen), "rejected": _assistant(rejected)}
    system = given.get("system")
    whole = f"{system}\n\n{prompt}" if isinstance(system, str) and system.strip() else prompt
    return {"prompt": whole, "chosen": chosen, "rejected": rejected}


def _messages(value: Any, part: str) -> list[Message]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadRow(f"{part} is not a conversation")
    for message in value:
        if not isinstance(message, Mapping) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            raise BadRow(f"{part} has a message without role and content")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _split(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """Returns what comes before the last answer, and that answer."""
    start = len(messages)
    while start > 0 and messages[start - 1]["role"] == "assistant":
        start -= 1
    if start == len(messages):
        raise BadRow("the conversation does not end with the assistant")
    return messages[:start], messages[start:]


def _as_prompt(value: Any) -> list[Message]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value.strip() else []
    return [] if value is None else _messages(value, "prompt")


def _with_system(prompt: list[Message], system: Any) -> list[Message]:
    if not isinstance(system, str) or not system.strip() or any(each["role"] == "system" for each in prompt):
        return prompt
    return [{"role": "system", "content": system}, *prompt] if prompt else []


def _assistant(content: str) -> list[Message]:
    return [{"role": "assistant", "content": content}]


def _text(given: Row, part: str) -> str:
    value = given.get(part)
    if value is None:
        raise BadRow(f"{part} is empty")
    if not isinstance(value, str):
        raise BadRow(f"{part} is neither text nor a conversation")
    return value


def _is_chatml(prompt: Any) -> bool:
    return isinstance(prompt, str) and bool(_CHATML.search(prompt))


def _content(part: str | list[Message]) -> str:
    return part if isinstance(part, str) else "\n".join(message["content"] for message in part)
