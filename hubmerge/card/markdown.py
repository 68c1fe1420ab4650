"""Text made safe for Markdown: whatever a template prints shows as it is and can change nothing around it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from hubmerge.card.facts import FileFacts, ParentFacts
from hubmerge.card.parents import HUB, commit_url, parent_title

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, and the marks that turn the direction of text around."""

_INLINE = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BLOCK_START = re.compile(r"^(\d{0,9})([-+=.)]|#{1,6})(?=\s|$)")


class Markdown(str):
    """Text that is Markdown already and is printed as it is."""

    __slots__ = ()


def printed(value: object) -> str:
    """Returns what a template prints for a value: Markdown as it is, anything else escaped."""
    return value if isinstance(value, Markdown) else escape(str(value))


def escape(text: str) -> Markdown:
    """Returns one line of text that Markdown shows literally, anywhere in a line or a table."""
    line = " ".join(_UNPRINTABLE.sub("", text).split())
    entities = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markdown(_BLOCK_START.sub(r"\1\\\2", _INLINE.sub(r"\\\g<0>", entities)))


def code(text: str) -> Markdown:
    """Returns a code span; not for tables, which would split it at a bar."""
    line = " ".join(_UNPRINTABLE.sub("", text).split())
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return Markdown(f"{ticks}{pad}{line}{pad}{ticks}")


def fenced(text: str, language: str = "") -> Markdown:
    """Returns a code block of the text, verbatim but for control characters and blank lines at its ends."""
    lines = _UNPRINTABLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip("\n")
    ticks = "`" * max(3, _longest_run(lines) + 1)
    return Markdown(f"{ticks}{language}\n{lines}\n{ticks}")


def url(text: str) -> Markdown:
    """Returns a link to a web address that shows the address; other text is escaped."""
    if not re.fullmatch(r"https?://[!-~]+", text) or re.search(r"[<>\"\\^`{|}]", text):
        return escape(text)
    return Markdown(f"<{text}>")


def model(parent: ParentFacts) -> Markdown:
    """Returns a parent's name, linked at the commit that was read; of a local folder only the last part of its path."""
    title = escape(parent_title(parent))
    address = commit_url(parent)
    if address is None:
        return Markdown(f"local folder {title}")
    return title if parent.missing else Markdown(f"[{title}]({_link_target(address)})")


def linked(item: tuple[str, str | None]) -> Markdown:
    """Returns a text linked to an address, or the text alone where there is none."""
    text, address = item
    return escape(text) if address is None else Markdown(f"[{escape(text)}]({_link_target(address)})")


def commit(sha: str | None, repo_id: str | None) -> Markdown:
    """Returns the short form of a commit, linked to its page; a dash for none."""
    if sha is None:
        return Markdown("–")
    short = code(sha[:7])
    return short if repo_id is None else Markdown(f"[{short}]({_link_target(f'{HUB}/{repo_id}/commit/{sha}')})")


def count(number: int) -> Markdown:
    """Returns a large number in three digits: 7,241,732,096 is "7.24 billion"."""
    for size, name in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if number >= 0.9995 * size:  # three digits round that up to 1
            return Markdown(f"{number / size:.3g} {name}")
    return thousands(number)


def thousands(number: int) -> Markdown:
    """Returns a number with a comma at every thousand."""
    return Markdown(f"{number:,}")


def listed(items: list[str]) -> Markdown:
    """Returns "a, b and c" of items that are printed as values are."""
    shown = [printed(item) for item in items]
    return Markdown(" and ".join(filter(None, (", ".join(shown[:-1]), shown[-1]))))


def literal(text: str) -> Markdown:
    """Returns a string literal of Python, for a code block."""
    return Markdown(json.dumps(text))


def checksums(files: Iterable[FileFacts]) -> str:
    """Returns one line a file, "sha256  path", for those whose hash is known."""
    return "\n".join(f"{file.sha256}  {file.path}" for file in files if file.sha256)


FILTERS = {
    "checksums": checksums,
    "code": code,
    "commit": commit,
    "count": count,
    "fenced": fenced,
    "listed": listed,
    "linked": linked,
    "literal": literal,
    "model": model,
    "thousands": thousands,
    "url": url,
}


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


def _link_target(address: str) -> str:
    return re.sub(r"[^A-Za-z0-9:/._@%-]", lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), address)
