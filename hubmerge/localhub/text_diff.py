"""The changes of a pull request as a patch. Pure, but for reading contents through a function given."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from hubmerge.localhub.changes import changed_paths
from hubmerge.localhub.git_objects import lfs_pointer
from hubmerge.localhub.records import FileEntry, Tree

_NO_FILE = "/dev/null"


def tree_diff(before: Tree, after: Tree, *, read: Callable[[str], bytes]) -> str:
    """Returns a unified diff; of large files it shows the pointers, as git does.

    Args:
        before: Files of the base.
        after: Files of the head.
        read: Returns the content with a sha256.
    """
    return "".join(_file_diff(path, before.get(path), after.get(path), read) for path in changed_paths(before, after))


def _file_diff(path: str, old: FileEntry | None, new: FileEntry | None, read: Callable[[str], bytes]) -> str:
    old_lines, new_lines = _lines(old, read), _lines(new, read)
    head = f"diff --git a/{path} b/{path}\n"
    if old_lines is None or new_lines is None:
        return f"{head}Binary files differ\n"
    old_name, new_name = f"a/{path}" if old else _NO_FILE, f"b/{path}" if new else _NO_FILE
    diff = difflib.unified_diff(old_lines, new_lines, old_name, new_name)
    return head + "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in diff)


def _lines(entry: FileEntry | None, read: Callable[[str], bytes]) -> list[str] | None:
    if entry is None:
        return []
    content = lfs_pointer(entry.sha256, entry.size) if entry.large else read(entry.sha256)
    try:
        return content.decode().splitlines(keepends=True)
    except UnicodeDecodeError:
        return None
