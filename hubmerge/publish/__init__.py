"""Where a finished merge goes: a folder or a Hub repo, changed in one step at the end.

What needs the Hub's client is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from hubmerge.publish.folder import FolderPublisher
from hubmerge.publish.plan_note import PlanNote
from hubmerge.publish.publisher import KeptShard, Published, Publisher, StagedShard

if TYPE_CHECKING:
    from hubmerge.publish.hub import HubPublisher, HubTarget

__all__ = [
    "FolderPublisher",
    "HubPublisher",
    "HubTarget",
    "KeptShard",
    "PlanNote",
    "Published",
    "Publisher",
    "StagedShard",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hubmerge.publish import hub

    return getattr(hub, name)
