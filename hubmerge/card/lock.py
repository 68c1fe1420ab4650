"""hubmerge.lock.json: exactly which bytes of which parents a merge was made from, and what came out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from hubmerge.card.facts import ChangeFacts, ParentChange
from hubmerge.card.lock_entry import Entry, load_entry
from hubmerge.errors import CardError

LOCK_FILE = "hubmerge.lock.json"
SCHEMA_VERSION = 1
LARGEST_LOCK_BYTES = 16 * 2**20
"""A merge of thirty parents with a thousand files each stays below it."""


@dataclass(frozen=True, kw_only=True)
class LockedFile:
    """One file of a parent.

    Attributes:
        sha256: Of its content, 64 hexadecimal digits; None if the Hub does not keep it as a large file.
        blob_id: Git's hash of it, 40 hexadecimal digits; None on disk.
    """

    path: str
    size_bytes: int
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class DeclaredLicence:
    """What a parent's card declared, as `ParentFacts` has it."""

    license: str | None = None
    name: str | None = None
    link: str | None = None


@dataclass(frozen=True, kw_only=True)
class LockedParent:
    """One parent as it was read.

    Attributes:
        repo_id: None for a local folder.
        sha: Its commit, 40 hexadecimal digits; None for a local folder.
        revision: What the recipe asked for: a branch, a tag or a commit; None if nothing.
        files: Those that the merge depends on.
        declared: None where nobody recorded it; so is `gated`.
        gated: Whether its readers had to accept terms.
    """

    repo_id: str | None
    sha: str | None
    revision: str | None
    files: tuple[LockedFile, ...]
    declared: DeclaredLicence | None = None
    gated: bool | None = None


@dataclass(frozen=True, kw_only=True)
class LockedOutput:
    """One file of the merge.

    Attributes:
        sha256: 64 hexadecimal digits.
        made_from: What its bytes follow from, as 64 hexadecimal digits: equal ones mean equal bytes, whatever the
            parents' commits. None where nobody recorded it.
    """

    path: str
    size_bytes: int
    sha256: str
    made_from: str | None = None


@dataclass(frozen=True, kw_only=True)
class LockedOptions:
    """What somebody asked for beside the recipe.

    Attributes:
        shard_bytes: Most bytes of tensors in one output file.
        lenient: Unknown recipe keys were warnings instead of errors.
        lineage: Whether the parents' own ancestors were read for the licence.
        diagnostics: Whether statistics of the weights were collected.
        allow_nan: Whether NaN and infinity could pass.
        seed: In place of the recipe's; None for the recipe's.
        device: What computed it, `cpu` or `cuda`.
    """

    shard_bytes: int
    lenient: bool
    lineage: bool
    diagnostics: bool
    allow_nan: bool
    seed: int | None = None
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class LockedLicence:
    """The licence that the merge was published under.

    Attributes:
        license: As the card's front matter has it, and `license_name` with `other`; None for none.
        reasons: What it follows from.
        chosen_because: What the person said who chose it; None where it was derived.
    """

    license: str | None
    reasons: tuple[str, ...]
    name: str | None = None
    chosen_because: str | None = None


@dataclass(frozen=True, kw_only=True)
class LockedAdapter:
    """An adapter that was trained on the merge and added to it before it was rounded.

    Attributes:
        path: Where its weights lie beside the lock file; None if they are not published.
        sha256: Of its weights.
        rounding: `nearest` or `stochastic`.
        fold_base: `original`, or `nf4` where it was added to what quantisation left of the weights.
    """

    path: str | None
    sha256: str
    rounding: str
    fold_base: str


@dataclass(frozen=True, kw_only=True)
class LockFacts:
    """Everything that a lock file says; equal facts give equal bytes. Facts with defaults may not have been recorded.

    Attributes:
        recipe_sha256: Of the recipe's text, 64 hexadecimal digits.
        changes: Since the merge that this one took the place of.
    """

    hubmerge_version: str
    torch_version: str
    fingerprint: str
    seed: int | None
    parents: tuple[LockedParent, ...]
    outputs: tuple[LockedOutput, ...]
    recipe_sha256: str | None = None
    options: LockedOptions | None = None
    licence: LockedLicence | None = None
    changes: ChangeFacts | None = None
    adapters: tuple[LockedAdapter, ...] = ()


def render_lock(facts: LockFacts) -> str:
    """Returns the text of the lock file."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "hubmerge_version": facts.hubmerge_version,
        "torch_version": facts.torch_version,
        "fingerprint": facts.fingerprint,
        "seed": facts.seed,
        "recipe_sha256": facts.recipe_sha256,
        "options": None if facts.options is None else asdict(facts.options),
        "licence": None if facts.licence is None else asdict(facts.licence),
        "parents": [_parent_entry(parent) for parent in facts.parents],
        "outputs": [_output_entry(output) for output in facts.outputs],
        "changes": None if facts.changes is None else asdict(facts.changes),
        **({"adapters": [asdict(adapter) for adapter in facts.adapters]} if facts.adapters else {}),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def parse_lock(text: str) -> LockFacts:
    """Returns the facts of a lock file that anybody may have written.

    Raises:
        CardError: It is not a lock file of this version; the message says where.
    """
    entry = load_entry(text, LOCK_FILE, largest_bytes=LARGEST_LOCK_BYTES)
    version = entry.integer("schema_version")
    if version != SCHEMA_VERSION:
        raise CardError(
            f"{LOCK_FILE}: its schema version is {version}, and this hubmerge reads {SCHEMA_VERSION}",
            hint="Update hubmerge: pip install --upgrade hubmerge",
        )
    return LockFacts(
        hubmerge_version=entry.text("hubmerge_version"),
        torch_version=entry.text("torch_version"),
        fingerprint=entry.text("fingerprint"),
        seed=entry.optional("seed", entry.integer),
        parents=entry.items("parents", _parent),
        outputs=entry.items("outputs", _output),
        recipe_sha256=entry.optional("recipe_sha256", entry.sha256),
        options=entry.optional("options", lambda key: _options(entry.entry(key))),
        licence=entry.optional("licence", lambda key: _licence(entry.entry(key))),
        changes=entry.optional("changes", lambda key: _changes(entry.entry(key))),
        adapters=entry.optional("adapters", lambda key: entry.items(key, _adapter)) or (),
    )


def _parent_entry(parent: LockedParent) -> dict[str, object]:
    files = [
        {"path": file.path, "size": file.size_bytes, "sha256": file.sha256, "blob_id": file.blob_id}
        for file in parent.files
    ]
    return {
        "repo_id": parent.repo_id,
        "sha": parent.sha,
        "revision": parent.revision,
        "gated": parent.gated,
        "declared": None if parent.declared is None else asdict(parent.declared),
        "files": files,
    }


def _output_entry(output: LockedOutput) -> dict[str, object]:
    return {
        "path": output.path,
        "size": output.size_bytes,
        "sha256": output.sha256,
        "made_from": output.made_from,
    }


def _parent(entry: Entry) -> LockedParent:
    return LockedParent(
        repo_id=entry.optional("repo_id", entry.text),
        sha=entry.optional("sha", entry.sha1),
        revision=entry.optional("revision", entry.text),
        files=entry.items("files", _file),
        declared=entry.optional("declared", lambda key: _declared(entry.entry(key))),
        gated=entry.optional("gated", entry.flag),
    )


def _declared(entry: Entry) -> DeclaredLicence:
    return DeclaredLicence(
        license=entry.optional("license", entry.text),
        name=entry.optional("name", entry.text),
        link=entry.optional("link", entry.text),
    )


def _file(entry: Entry) -> LockedFile:
    return LockedFile(
        path=entry.path("path"),
        size_bytes=entry.size("size"),
        sha256=entry.optional("sha256", entry.sha256),
        blob_id=entry.optional("blob_id", entry.sha1),
    )


def _adapter(entry: Entry) -> LockedAdapter:
    return LockedAdapter(
        path=entry.optional("path", entry.path),
        sha256=entry.sha256("sha256"),
        rounding=entry.text("rounding"),
        fold_base=entry.text("fold_base"),
    )


def _output(entry: Entry) -> LockedOutput:
    return LockedOutput(
        path=entry.path("path"),
        size_bytes=entry.size("size"),
        sha256=entry.sha256("sha256"),
        made_from=entry.optional("made_from", entry.sha256),
    )


def _options(entry: Entry) -> LockedOptions:
    return LockedOptions(
        shard_bytes=entry.size("shard_bytes"),
        lenient=entry.flag("lenient"),
        lineage=entry.flag("lineage"),
        diagnostics=entry.flag("diagnostics"),
        allow_nan=entry.flag("allow_nan"),
        seed=entry.optional("seed", entry.integer),
        device=entry.optional("device", entry.text) or "cpu",
    )


def _licence(entry: Entry) -> LockedLicence:
    return LockedLicence(
        license=entry.optional("license", entry.text),
        reasons=entry.texts("reasons"),
        name=entry.optional("name", entry.text),
        chosen_because=entry.optional("chosen_because", entry.text),
    )


def _changes(entry: Entry) -> ChangeFacts:
    return ChangeFacts(
        previous_sha=entry.sha1("previous_sha"),
        is_recipe_changed=entry.flag("is_recipe_changed"),
        parents=entry.items("parents", _change),
    )


def _change(entry: Entry) -> ParentChange:
    return ParentChange(
        repo_id=entry.text("repo_id"),
        old_sha=entry.optional("old_sha", entry.sha1),
        new_sha=entry.optional("new_sha", entry.sha1),
        kinds=entry.texts("kinds"),
    )
