"""What every drawing of an ancestry shows of a model, in words and kinds; colours are each drawing's own."""

from __future__ import annotations

from enum import Enum, StrEnum

from hubmerge.card.licence import licence_families
from hubmerge.card.licence_ids import Family
from hubmerge.lineage.graph import Node, Relation, State


class Kind(StrEnum):
    """What a model is to its drawing."""

    MERGE = "merge"
    FINETUNE = "fine-tune"
    ADAPTER = "adapter"
    QUANTIZED = "quantised"
    ORIGINAL = "no known parents"
    UNSEEN = "cannot be read"


class Tone(Enum):
    """What a licence asks of descendants, from the least to the most."""

    OPEN = "permissive"
    SHARED = "share alike"
    RESTRICTED = "restricted use"
    NONCOMMERCIAL = "non-commercial"
    FORBIDDEN = "no derivatives"
    UNKNOWN = "unknown"


_KINDS = {
    Relation.MERGE: Kind.MERGE,
    Relation.FINETUNE: Kind.FINETUNE,
    Relation.ADAPTER: Kind.ADAPTER,
    Relation.QUANTIZED: Kind.QUANTIZED,
}
_UNSEEN = {
    State.MISSING: "deleted or private",
    State.LOCAL: "local folder",
    State.UNREACHABLE: "no answer",
    State.UNREAD: "not followed",
}
_TONES = {
    Family.PERMISSIVE: Tone.OPEN,
    Family.ATTRIBUTION: Tone.OPEN,
    Family.NONCOMMERCIAL: Tone.NONCOMMERCIAL,
    Family.SHARE_ALIKE: Tone.SHARED,
    Family.NONCOMMERCIAL_SHARE_ALIKE: Tone.NONCOMMERCIAL,
    Family.COPYLEFT: Tone.SHARED,
    Family.USE_RESTRICTED: Tone.RESTRICTED,
    Family.OWN_TERMS: Tone.RESTRICTED,
    Family.NO_DERIVATIVES: Tone.FORBIDDEN,
    Family.UNKNOWN: Tone.UNKNOWN,
}


def kind_of(node: Node) -> Kind:
    """Returns what a model is drawn as."""
    if node.state in _UNSEEN:
        return Kind.UNSEEN
    return Kind.ORIGINAL if node.relation is None else _KINDS[node.relation]


def made_by(node: Node) -> str:
    """Returns how a model was made, in a few words: `merge · dare_ties`, `fine-tune · dpo`, `deleted or private`."""
    words = [_UNSEEN.get(node.state, kind_of(node).value), node.method, "gated" if node.state is State.GATED else None]
    return " · ".join(word for word in words if word)


def licence_title(node: Node) -> str:
    """Returns what a model declares, in the words of its card."""
    licence = node.licence
    if licence.license == "other" and licence.name:
        return licence.name
    return licence.license or "no licence"


def tone_of(node: Node) -> Tone:
    """Returns the tone of the strictest licence that a model declares."""
    return _TONES[max(licence_families(node.licence))]
