"""Everything of a published merge but its weights' values, compared with the plan made again."""

from __future__ import annotations

import fnmatch
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping

from hubmerge.card.lock import LockFacts
from hubmerge.merge.documents import model_files
from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.plan import Plan
from hubmerge.merge.side_files import side_files
from hubmerge.tokenizer import TOKENIZER_FILES
from hubmerge.verify.claims import locked_files_problem
from hubmerge.verify.published import Published, tensors_of
from hubmerge.verify.rebuild import Rebuilt
from hubmerge.verify.report import Check, Outcome
from hubmerge.version import __version__
from hubmerge.weights.files import FileEntry, Files
from hubmerge.weights.header import Header, TensorInfo
from hubmerge.weights.shard_index import abbreviated


def check_layout(published: Published, headers: Mapping[str, Header], rebuilt: Rebuilt) -> Iterator[Check]:
    """Yields the checks that read no values of weights."""
    lock = published.lock
    if lock is None:
        yield _tensors(headers, rebuilt.plan, is_placed=False)
        yield Check("small files", Outcome.NOT_NEEDED, "those of another tool need not be hubmerge's byte for byte")
        return
    yield _parents(lock, rebuilt)
    yield _fingerprint(lock, rebuilt.plan)
    yield _tensors(headers, rebuilt.plan, is_placed=True)
    yield _headers(published, rebuilt.plan)
    yield _small_files(published, rebuilt)


def _parents(lock: LockFacts, rebuilt: Rebuilt) -> Check:
    name = "files of the parents"
    for locked, checkpoint in zip(lock.parents, rebuilt.checkpoints, strict=True):
        if problem := locked_files_problem(locked, checkpoint.files.entries()):
            return Check(name, Outcome.DIFFERS, problem)
    return Check(name, Outcome.AGREES, f"{len(lock.parents)} parents hold what the lock file says")


def _fingerprint(lock: LockFacts, plan: Plan) -> Check:
    name = "fingerprint of the plan"
    if lock.hubmerge_version != __version__:
        return Check(name, Outcome.NOT_NEEDED, f"hubmerge {lock.hubmerge_version} and {__version__} have others")
    if any(parent.sha is None for parent in plan.parents):
        return Check(name, Outcome.NOT_NEEDED, "that of folders holds for one machine only")
    found = fingerprint(plan)
    if found != lock.fingerprint:
        return Check(name, Outcome.DIFFERS, f"{found[:12]} instead of the lock file's {lock.fingerprint[:12]}")
    return Check(name, Outcome.AGREES, f"{found[:12]}, the lock file's")


def _tensors(headers: Mapping[str, Header], plan: Plan, *, is_placed: bool) -> Check:
    name = "tensors"
    planned = {tensor.info.name: (shard.filename, tensor.info) for shard in plan.shards for tensor in shard.tensors}
    stored = {each: (source.file, source.info) for each, source in tensors_of(headers).items()}
    counts = Counter(info.name for header in headers.values() for info in header.tensors)
    problems = (
        ("in several files", [each for each, count in counts.items() if count > 1]),
        ("missing", [each for each in planned if each not in stored]),
        ("not of this merge", [each for each in stored if each not in planned]),
        (
            "of another dtype or shape",
            [n for n, (_, info) in stored.items() if n in planned and _kind(info) != _kind(planned[n][1])],
        ),
        ("in another place", [each for each in stored if is_placed and stored[each] != planned.get(each)]),
    )
    for words, names in problems:
        if names:
            return Check(name, Outcome.DIFFERS, f"{abbreviated(names)} {words}")
    where = ", dtypes, shapes and places" if is_placed else ", dtypes and shapes"
    return Check(name, Outcome.AGREES, f"names{where} of {len(planned)} are the plan's")


def _kind(info: TensorInfo) -> tuple[str, tuple[int, ...]]:
    return info.dtype, info.shape


def _headers(published: Published, plan: Plan) -> Check:
    name, files = "headers", published.files
    names = [shard.filename for shard in plan.shards]
    if (stored := list(published.weight_files)) != names:
        return Check(name, Outcome.DIFFERS, f"the files are {abbreviated(stored)} instead of {abbreviated(names)}")
    other = [s.filename for s in plan.shards if _start_of(files, s.filename, len(s.header)) != s.header]
    if other:
        return Check(name, Outcome.DIFFERS, f"{abbreviated(other)} begins with other bytes than the plan's")
    return Check(name, Outcome.AGREES, f"of {len(names)} files, byte for byte")


def _start_of(files: Files, path: str, size_bytes: int) -> bytes:
    return files.read(path, 0, min(size_bytes, files.entries()[path].size_bytes))


def expected_files(rebuilt: Rebuilt) -> dict[str, bytes]:
    """Returns the config, index, tokenizer, template and processor files that the merge has."""
    plan = rebuilt.plan
    return {**side_files(plan.tokenizer, plan.donor, rebuilt.checkpoints), **model_files(plan)}


def _small_files(published: Published, rebuilt: Rebuilt) -> Check:
    name, entries = "small files", published.files.entries()
    expected = expected_files(rebuilt)
    if missing := [path for path in expected if path not in entries]:
        return Check(name, Outcome.DIFFERS, f"{abbreviated(missing)} missing")
    other = [path for path, content in expected.items() if not _holds(published.files, entries[path], content)]
    other += [path for path in entries if path not in expected and _is_of_tokenizer(path)]
    if other:
        return Check(name, Outcome.DIFFERS, f"{abbreviated(other)} not as the merge has it")
    return Check(name, Outcome.AGREES, f"config, index, tokenizer and template: {len(expected)} files, byte for byte")


def _is_of_tokenizer(path: str) -> bool:
    return "/" not in path and any(fnmatch.fnmatchcase(path, pattern) for pattern in TOKENIZER_FILES)


def _holds(files: Files, entry: FileEntry, content: bytes) -> bool:
    """Returns whether a file has this content, told from its hash where the listing has one."""
    if entry.size_bytes != len(content):
        return False
    if entry.sha256 is not None:
        return entry.sha256 == hashlib.sha256(content).hexdigest()
    if entry.blob_id is not None:
        return entry.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 (git's)
    return files.read(entry.path, 0, entry.size_bytes) == content
