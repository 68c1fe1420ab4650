"""What became of a merge and its parents, as data for programs."""

from __future__ import annotations

from typing import Any

from hubmerge.republish.changes import MergeStatus, ParentStatus
from hubmerge.republish.run import Republication
from hubmerge.republish.status import Prospect


def status_summary(status: MergeStatus) -> dict[str, Any]:
    """Returns the status of a merge as JSON has it."""
    return {
        "merge": status.name,
        "commit": status.sha,
        "stale": status.is_stale,
        "recipe_changed": status.is_recipe_changed,
        "parents": [_parent(parent) for parent in status.parents],
    }


def prospect_summary(name: str, prospect: Prospect) -> dict[str, Any]:
    """Returns the parents of a recipe that nothing has been made of."""
    parents = [{"model": str(each.ref), "sha": each.sha, "problem": each.problem} for each in prospect.parents]
    return {"recipe": name, "parents": parents}


def republication_summary(ended: Republication) -> dict[str, Any]:
    """Returns how a republication ended; `state` is published, planned, or up_to_date: nothing to commit."""
    work, published = ended.work, ended.published
    is_committed = published is not None and published.commit != ended.status.sha
    state = "published" if is_committed else "planned" if work and not published else "up_to_date"
    return {
        **status_summary(ended.status),
        "state": state,
        "url": published.url if published else None,
        "new_commit": published.commit if published else None,
        "shards_made": list(work.made) if work else [],
        "shards_kept": list(work.kept) if work else [],
        "read_bytes": work.read_bytes if work else 0,
        "write_bytes": work.write_bytes if work else 0,
    }


def _parent(parent: ParentStatus) -> dict[str, Any]:
    return {
        "model": parent.label,
        "repo_id": parent.repo_id,
        "old_sha": parent.old_sha,
        "new_sha": parent.new_sha,
        "changes": [change.name.lower() for change in parent.changes],
        "stale": parent.is_stale,
        "details": list(parent.details),
    }
