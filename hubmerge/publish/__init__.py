"""Where a finished merge goes: a folder or a Hub repo, changed in one step at the end."""

from hubmerge.publish.folder import FolderPublisher
from hubmerge.publish.hub import HubPublisher, HubTarget
from hubmerge.publish.plan_note import PlanNote
from hubmerge.publish.publisher import KeptShard, Published, Publisher, StagedShard

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
