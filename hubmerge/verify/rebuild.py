"""The plan of a published merge made again, its parents open at the commits that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from hubmerge.card.lock import LockFacts
from hubmerge.errors import SourceError
from hubmerge.merge.devices import HOST
from hubmerge.merge.plan import DEFAULT_SHARD_BYTES, Plan, build_plan, lora_refs, model_refs
from hubmerge.merge.recipe import Recipe
from hubmerge.verify.claims import parent_keys, parents_problem
from hubmerge.verify.published import Published
from hubmerge.version import __version__
from hubmerge.weights.checkpoint import Checkpoint, ParentKey, open_checkpoints, parent_checkpoints
from hubmerge.weights.header import Header
from hubmerge.weights.reference import ModelRef

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
    for adapter in lora_refs(recipe):
        raise SourceError(
            f"the recipe lays the adapter {adapter} on its result, which cannot be verified yet",
            hint="In a download of the repo, `hubmerge merge mergekit_config.yml again` makes the same bytes.",
        )
    checkpoints = _open_pinned(model_refs(recipe), _locked_commits(published), token=token)
    parents = parent_checkpoints(checkpoints.values())
    try:
        size = DEFAULT_SHARD_BYTES if published.lock is None else shard_bytes(headers)
        plan = replace(build_plan(recipe, checkpoints, shard_bytes=size), device=_device(published.lock))
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
    alone, adapter = ref.without_adapter, ref.adapter
    if adapter is not None:
        adapter = replace(adapter, revision=commits.get((adapter, True)) or adapter.revision)
    return replace(alone, revision=commits.get((alone, False)) or alone.revision, adapter=adapter)


def _named(checkpoint: Checkpoint, ref: ModelRef) -> Checkpoint:
    adapter = checkpoint.adapter
    if adapter is not None and ref.adapter is not None:
        adapter = replace(adapter, ref=ref.adapter)
    return replace(checkpoint, ref=ref, adapter=adapter)


def _assumptions(plan: Plan, lock: LockFacts | None) -> Iterator[str]:
    for parent in plan.parents:
        if parent.sha is None:
            yield f"The folder {parent.ref.path} holds what it held when the merge was made."
        elif lock is None:
            yield f"{parent.ref} was merged as it is now, at {parent.sha[:12]}: no lock file says at which commit."
    if plan.device != HOST:
        yield f"It was computed on {plan.device}, which rounds a little differently; here the processor computes."
    if lock is not None and lock.hubmerge_version != __version__:
        yield f"hubmerge {lock.hubmerge_version}, which made it, computes as {__version__} does."
