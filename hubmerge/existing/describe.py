"""What the card of a merge that is there already says: the facts of its files, its parents and its ancestry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from hubmerge.card.facts import LicenceDecision, MergeFacts, Outcome, ParentFacts
from hubmerge.card.licence import override_licence
from hubmerge.card.licence_ids import normalise
from hubmerge.card.parents import parent_facts, parent_title
from hubmerge.existing.found import FoundMerge
from hubmerge.existing.parents import SeenParent, commits_of, tokenizer_hashes
from hubmerge.lineage.declared import Parent
from hubmerge.lineage.graph import Evidence, Lineage
from hubmerge.lineage.names import NamedModel
from hubmerge.lineage.published import recipe_names
from hubmerge.merge.ancestry import Ancestry, ancestry_facts, ancestry_of
from hubmerge.merge.describe import (
    MERGE_COMMAND,
    architecture_of,
    context_length_of,
    dtype_of,
    has_chat_template,
    pipeline_tag_of,
    reproducing_command,
)
from hubmerge.merge.licensing import LicenceChoice, decide_licence
from hubmerge.merge.methods import METHODS
from hubmerge.merge.normalise import pinned_recipe
from hubmerge.merge.recipe import Recipe
from hubmerge.version import __version__
from hubmerge.weights.files import read_small
from hubmerge.weights.front_matter import parse_front_matter
from hubmerge.weights.reference import ModelRef

TEMPLATE_CARRIERS = ("chat_template.jinja", "tokenizer_config.json")
CARRIER_LIMIT_BYTES = 16 << 20

_VOCABULARIES = ("tokenizer", "vocab", "spiece")
"""How the names of files with a vocabulary begin."""

_COMMAND = re.compile(rf"^{re.escape(MERGE_COMMAND)}(?: [\w./-]+)+$", re.M | re.ASCII)

_KEPT_LICENCE = "it is what the card declared before, though it does not follow from what the ancestors declare."
_OWN_CARD = "the card of this merge"


def ancestry_behind(
    merge: FoundMerge, parents: Sequence[SeenParent], *, token: str | bool | None, is_wanted: bool
) -> Ancestry:
    """Returns the ancestry, the parents at the commits at which they were seen."""
    return ancestry_of(
        merge.repo_id or merge.title,
        [_link(parent) for parent in parents],
        method=_method(merge),
        folders={parent.named.model.text: parent.folder for parent in parents if parent.folder is not None},
        token=token,
        is_wanted=is_wanted,
    )


def licence_of(
    merge: FoundMerge, parents: Sequence[SeenParent], ancestry: Ancestry, choice: LicenceChoice | None
) -> LicenceDecision:
    """Returns the chosen licence, else the one that follows from all ancestors and from the card of the merge."""
    facts = [parent.facts for parent in parents]
    decision = decide_licence(facts, ancestry, choice=choice, repo_id=merge.repo_id)
    return decision if choice else _as_published(merge, facts, ancestry, decision)


def _as_published(
    merge: FoundMerge, parents: Sequence[ParentFacts], ancestry: Ancestry, derived: LicenceDecision
) -> LicenceDecision:
    """Returns the licence of the card where a person chose it, where none follows, or where it asks for more."""
    own = parent_facts(parse_front_matter(merge.card.encode()), label=_OWN_CARD, role="")
    then = merge.lock.licence if merge.lock else None
    if own.license is None:
        return derived
    name, link = own.license_name, own.license_link
    if then is not None and then.chosen_because and then.license == own.license:
        return override_licence(derived, license=own.license, reason=then.chosen_because, name=name, link=link)
    if derived.outcome is not Outcome.DERIVED:
        return override_licence(derived, license=own.license, reason=_KEPT_LICENCE, name=name, link=link)
    joined = decide_licence([*parents, own], ancestry, repo_id=merge.repo_id)
    asks_more = joined.outcome is Outcome.DERIVED and (joined.license, joined.name) != (derived.license, derived.name)
    if not (asks_more and _is_declared(joined, own)):
        return derived
    return replace(joined, link=link) if link and joined.license == "other" else joined


def _is_declared(decision: LicenceDecision, card: ParentFacts) -> bool:
    if decision.license == "other":
        return decision.name == card.license_name
    return decision.license == normalise(card.license or "")


def existing_facts(
    merge: FoundMerge, parents: Sequence[SeenParent], licence: LicenceDecision, lineage: Lineage | None
) -> MergeFacts:
    """Returns everything that the card says; what nobody recorded is left out."""
    method = METHODS.get(_method(merge))
    architecture = architecture_of(merge.config)
    lock = merge.lock
    return MergeFacts(
        repo_id=merge.repo_id,
        title=merge.title,
        method_title=method.title if method else _method(merge),
        method_paper=method.paper if method else None,
        method_summary=method.summary if method else "",
        parents=tuple(parent.facts for parent in parents),
        recipe_text=merge.recipe_text,
        normalised_recipe=_pinned_recipe(merge, parents),
        command=_command(merge),
        dtype=_dtype(merge),
        architecture=architecture,
        pipeline_tag=pipeline_tag_of(architecture, merge.config),
        parameter_count=merge.weights.parameter_count,
        context_length=context_length_of(merge.config),
        tokenizer_from=_tokenizer_from(merge, parents),
        chat_template=_has_chat_template(merge),
        seed=lock.seed if lock else None,
        version=lock.hubmerge_version if lock else __version__,
        torch_version=lock.torch_version if lock else None,
        fingerprint=lock.fingerprint if lock else None,
        files=merge.weights.files,
        notes=merge.notes,
        ancestry=None if lineage is None else ancestry_facts(lineage),
        changes=lock.changes if lock else None,
        made_elsewhere=lock is None,
        licence=licence,
    )


def _link(parent: SeenParent) -> Parent:
    named = parent.named.model
    model = NamedModel(named.text, named.repo_id, parent.facts.sha or named.revision)
    return Parent(model, parent.named.is_base, (Evidence.PLAN,))


def _method(merge: FoundMerge) -> str:
    return (merge.recipe.method if merge.recipe else recipe_names(merge.recipe_text).method) or "unnamed method"


def _command(merge: FoundMerge) -> str | None:
    """Returns the command line; that of a card of ours stays, since no other file has its options."""
    if merge.recipe is None:
        return None
    if merge.lock is None:
        return reproducing_command(f"YOUR_NAME/{merge.title}" if merge.repo_id else None)
    known = _COMMAND.search(merge.card)
    return known[0] if known else reproducing_command(merge.repo_id)


def _pinned_recipe(merge: FoundMerge, parents: Sequence[SeenParent]) -> str | None:
    if merge.recipe is None:
        return None
    seed = merge.lock.seed if merge.lock and merge.lock.seed is not None else merge.recipe.seed
    return pinned_recipe(replace(merge.recipe, seed=seed), commits_of(parents))


def _dtype(merge: FoundMerge) -> str:
    asked = (merge.recipe.out_dtype or merge.recipe.dtype) if merge.recipe else None
    return dtype_of(merge.config) or asked or "unknown precision"


def _tokenizer_from(merge: FoundMerge, parents: Sequence[SeenParent]) -> str | None:
    """Returns the parent that has the same tokenizer.json, else what the recipe asks for."""
    if not any(path.startswith(_VOCABULARIES) for path in merge.files.entries()):
        return None
    own = tokenizer_hashes(merge.files)
    same = [parent_title(parent.facts) for parent in parents if own & parent.tokenizer]
    return same[0] if same else _asked_tokenizer(merge.recipe) or "a source that is not recorded"


def _asked_tokenizer(recipe: Recipe | None) -> str | None:
    source = recipe.tokenizer.source if recipe and recipe.tokenizer else None
    if source == "union":
        return "all parents' vocabularies together, as the recipe asks"
    return f"{source}, as the recipe asks" if isinstance(source, ModelRef) else None


def _has_chat_template(merge: FoundMerge) -> bool:
    entries = merge.files.entries()
    present = [path for path in TEMPLATE_CARRIERS if path in entries]
    return has_chat_template({path: read_small(merge.files, path, limit_bytes=CARRIER_LIMIT_BYTES) for path in present})
