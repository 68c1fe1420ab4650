"""The plan of a published merge made again, its parents open at the commits that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from hubmerge.card.lock import LockedAdapter, LockFacts
from hubmerge.errors import SourceError
from hubmerge.merge.devices import HOST
from hubmerge.merge.plan import DEFAULT_SHARD_BYTES, Plan, build_plan, lora_refs, model_refs, plan_parents
from hubmerge.merge.recipe import Recipe
from hubmerge.verify.claims import parent_keys, parents_problem
from hubmerge.verify.published import Published
from hubmerge.version import __version__
from hubmerge.weights.checkpoint import (
    Checkpoint,
    ParentKey,
    adapter_in,
    open_adapter,
    open_checkpoints,
    parent_checkpoints,
)
from hubmerge.weights.header import Header
from hubmerge.weights.reference import ModelRef
from hubmerge.weights.snapshot import Snapshot
from hubmerge.weights.subfolder import Subfolder

Commits = Mapping[ParentKey, str | None]


@dataclass(frozen=True)
class Rebuilt:
    """A merge planned again.

    Attributes:
        checkpoints: Those of `plan.parents`.
        assumptions: What nothing in the published files vouches for, one sentence each.
    """

    plan: Plan
    checkpoints: tuple[Checkpoint, ...]
    assumptions: tuple[str, ...]


@contextmanager
def rebuild(
    published: Published, headers: Mapping[str, Header], *, token: str | bool | None = None
) -> Iterator[Rebuilt]:
    """Gives the plan of a published merge, with its seed, its parents' commits and its division into files.

    Args:
        published: The merge.
        headers: Of its files of weights.
        token: For reading the parents.

    Raises:
        SourceError: A parent is gone, or the lock file does not say which commits were merged.
        PlanError: The parents do not fit together.
    """
    recipe = _with_seed(published.recipe, published.lock)
    _check_computable(published)
    commits = _locked_commits(published)
    checkpoints = _open_pinned(model_refs(recipe), commits, token=token)
    parents = parent_checkpoints(checkpoints.values())
    try:
        adapters = {ref: _open_adapter(ref, published, commits, token=token) for ref in lora_refs(recipe)}
        parents = plan_parents(checkpoints, adapters)
        size = DEFAULT_SHARD_BYTES if published.lock is None else shard_bytes(headers)
        plan = build_plan(recipe, checkpoints, adapters, shard_bytes=size)
        plan = replace(plan, device=_device(published.lock))
        yield Rebuilt(plan, tuple(parents.values()), tuple(_assumptions(plan, published.lock)))
    finally:
        for parent in parents.values():
            parent.files.close()


def shard_bytes(headers: Mapping[str, Header]) -> int:
    """Returns the smallest size of shards with which tensors are divided into these files; see `lay_out`."""
    several = (header.tensors for header in headers.values() if len(header.tensors) > 1)
    return max((sum(tensor.size_bytes for tensor in tensors) for tensors in several), default=1)


def _device(lock: LockFacts | None) -> str:
    return HOST if lock is None or lock.options is None else lock.options.device


def _check_computable(published: Published) -> None:
    """Raises SourceError if what an adapter was added to, or the adapter, is nowhere to be had."""
    for adapter in () if published.lock is None else published.lock.adapters:
        if adapter.path is None:
            raise SourceError(
                f"{published.files.label} has an adapter folded in that is not published with it",
                hint=f"Whoever has it knows it by its SHA-256, {adapter.sha256}.",
            )
        if adapter.fold_base != "original":
            raise SourceError(
                f"the adapter was added to what {adapter.fold_base.upper()} left of the weights, which is made by "
                "bitsandbytes on the machine of the training and is not computed again here"
            )


def _open_adapter(ref: ModelRef, published: Published, commits: Commits, *, token: str | bool | None) -> Checkpoint:
    """Returns an adapter that is added to what a recipe makes: one beside the weights, or one of its own."""
    beside = None if published.lock is None else _folder_beside(ref, published.lock.adapters)
    if beside is not None:
        files = Subfolder(published.files, beside)
        return adapter_in(ref, Snapshot(files, sha=None, gated=False, private=False))
    return replace(open_adapter(_pinned_alone(ref, commits, is_adapter=True), token=token), ref=ref)


def _folder_beside(ref: ModelRef, adapters: Sequence[LockedAdapter]) -> str | None:
    folders = [adapter.path.rpartition("/")[0] for adapter in adapters if adapter.path is not None]
    return next((folder for folder in folders if ref.path == f"./{folder}"), None)


def _with_seed(recipe: Recipe, lock: LockFacts | None) -> Recipe:
    return recipe if lock is None or lock.seed is None else recipe.with_seed(lock.seed)


def _locked_commits(published: Published) -> Commits:
    lock, recipe = published.lock, published.recipe
    if lock is None:
        return {}
    if problem := parents_problem(recipe, lock):
        raise SourceError(f"the lock file does not tell the parents' commits: {problem}")
    commits = dict(zip(parent_keys(recipe), (parent.sha for parent in lock.parents), strict=True))
    for (ref, _), sha in commits.items():
        if sha is None and not ref.is_local:
            raise SourceError(f"{ref} was a folder on the machine that made the merge, and there is none here")
    return commits


def _open_pinned(refs: Sequence[ModelRef], commits: Commits, *, token: str | bool | None) -> dict[ModelRef, Checkpoint]:
    """Returns the checkpoints at their commits, under the names that the recipe has for them."""
    pinned = {ref: _pinned(ref, commits) for ref in refs}
    opened = open_checkpoints(pinned.values(), token=token)
    return {ref: _named(opened[target], ref) for ref, target in pinned.items()}


def _pinned(ref: ModelRef, commits: Commits) -> ModelRef:
    model = _pinned_alone(ref.without_adapter, commits, is_adapter=False)
    adapter = None if ref.adapter is None else _pinned_alone(ref.adapter, commits, is_adapter=True)
    return replace(model, adapter=adapter)


def _pinned_alone(ref: ModelRef, commits: Commits, *, is_adapter: bool) -> ModelRef:
    return replace(ref, revision=commits.get((ref, is_adapter)) or ref.revision)


def _named(checkpoint: Checkpoint, ref: ModelRef) -> Checkpoint:
    adapter = checkpoint.adapter
    if adapter is not None and ref.adapter is not None:
        adapter = replace(adapter, ref=ref.adapter)
    return replace(checkpoint, ref=ref, adapter=adapter)


def _assumptions(plan: Plan, lock: LockFacts | None) -> Iterator[str]:
    trained = () if lock is None else lock.adapters
    for parent in plan.parents:
        if parent.is_adapter and _folder_beside(parent.ref, trained) is not None:
            yield f"The adapter in {parent.ref.path} came about as the card says: no training is repeated."
        elif parent.sha is None:
            yield f"The folder {parent.ref.path} holds what it held when the merge was made."
        elif lock is None:
            yield f"{parent.ref} was merged as it is now, at {parent.sha[:12]}: no lock file says at which commit."
    if plan.device != HOST:
        yield f"It was computed on {plan.device}, which rounds a little differently; here the processor computes."
    if lock is not None and lock.hubmerge_version != __version__:
        yield f"hubmerge {lock.hubmerge_version}, which made it, computes as {__version__} does."
