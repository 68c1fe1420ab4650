"""The card that a merge would get, before it is made."""

from __future__ import annotations

from hubmerge.merge.describe import Target
from hubmerge.merge.options import DEFAULT_OPTIONS, MergeOptions
from hubmerge.merge.pipeline import RecipeLike, merge_documents, open_merge

FOLDER_NAME = "merged-model"


def preview_card(recipe: RecipeLike, repo_id: str | None = None, *, options: MergeOptions = DEFAULT_OPTIONS) -> str:
    """Returns the card of a merge as far as its plan tells: everything but what the weights' hashes will be.

    Args:
        recipe: A file, its text, its content, or a loaded recipe.
        repo_id: Where the merge is going to be published; None if that is open.
        options: Those that the merge will be made with.

    Raises:
        HubmergeError: One of its kinds: the merge could not be made.
    """
    with open_merge(recipe, options) as merge:
        target = Target(repo_id or FOLDER_NAME, is_repo=repo_id is not None)
        return merge_documents(merge, target).card([], {})
