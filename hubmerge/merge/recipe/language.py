"""Keys where they do not belong, and keys of other languages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hubmerge.merge.methods import METHODS
from hubmerge.merge.recipe.fields import Remarks, did_you_mean, fault, mapping
from hubmerge.merge.recipe.keys import CASE_KEYS, EXPERT_KEYS, MIXTURE_KEYS, RECIPE_KEYS, TOKENIZER_KEYS
from hubmerge.merge.recipe.yaml_tree import Item

_FORMS = ("models", "slices", "modules")

_COMMAND_LINE = (
    "allow_crimes",
    "clone_tensors",
    "copy_tokenizer",
    "cuda",
    "lazy_unpickle",
    "low_cpu_memory",
    "out_shard_size",
    "trust_remote_code",
    "write_model_card",
)
_TARGET = ("out_path", "output", "output_dir", "output_path")
_NOTES = ("author", "description", "language", "library_name", "license", "notes", "tags", "title", "version")
_EXTENSIONS = ("x-", ".", "_")
"""What keys begin with that only hold an anchor for other places, as in Compose files."""

_PLACES: Mapping[str, str] = {
    **dict.fromkeys(TOKENIZER_KEYS, "it belongs under tokenizer"),
    **dict.fromkeys(CASE_KEYS, "it belongs in the list of one parameter"),
    "force": "it belongs to a token under tokenizer.tokens",
    "model": "it belongs in models or in the sources of a slice",
    "sources": "it belongs in slices",
    "layer_range": "it belongs in the sources of a slice",
    "revision": "a revision is written after the model, as in org/name@revision",
    **dict.fromkeys(RECIPE_KEYS, "it belongs at the top level"),
    **dict.fromkeys(MIXTURE_KEYS, "it belongs at the top level of a mixture of experts"),
    **dict.fromkeys(EXPERT_KEYS, "it belongs to an expert of a mixture"),
    "lora": "an adapter is written after the model, as in org/name+org/adapter",
    **dict.fromkeys(("residual_weight", "embed_slerp"), "nothing reads it"),
    "override_architecture": "no architecture has to be named",
    **dict.fromkeys(_COMMAND_LINE, "it is an option of mergekit's command line"),
    **dict.fromkeys(_TARGET, "where a merge goes is said on the command line"),
    **dict.fromkeys(_NOTES, "it belongs in the model card"),
}
"""Where a key that is known, but not here, belongs."""

_OTHER_FILES: Mapping[str, str] = {
    "genome": "this is a configuration of mergekit-evolve, which searches for a recipe; it is not a recipe itself",
}


def check_keys(item: Item, allowed: Collection[str], remarks: Remarks) -> Mapping[str, Item]:
    """Returns the entries of a mapping, each key being one of `allowed`; the values that are null are left out.

    A key that belongs elsewhere in the language is warned about, and one that is known nowhere is refused.
    """
    found = mapping(item)
    for key, value in found.items():
        if key not in allowed:
            _misplaced(key, value, allowed, remarks)
    return {key: value for key, value in found.items() if key in allowed and value.value is not None}


def refuse_other_files(document: Item) -> None:
    """Refuses the configurations of mergekit's sister tools, with a sentence that says what they are."""
    for key, sentence in _OTHER_FILES.items():
        if key in mapping(document):
            raise fault(mapping(document)[key], sentence)


def one_form(item: Item, found: Mapping[str, Item], forms: Sequence[str] = _FORMS) -> str:
    """Returns which of `models`, `slices` and `modules` says what is merged; an empty one beside it does not."""
    present = [form for form in forms if form in found]
    stated = [form for form in present if found[form].value not in ((), {})] or present
    if len(stated) != 1:
        has = " and ".join(stated) or "none"
        raise fault(item, f"takes exactly one of {', '.join(forms[:-1])} and {forms[-1]}, and has {has}")
    return stated[0]


def parameter_owners(name: str) -> tuple[str, ...]:
    """Returns the methods that have a parameter of this name."""
    return tuple(method.name for method in METHODS.values() if method.parameter(name) is not None)


def place_of(key: str) -> str | None:
    """Returns where a key belongs that has no meaning where it stands, or None for one that is known nowhere."""
    return _PLACES.get(key)


def _misplaced(key: str, item: Item, allowed: Collection[str], remarks: Remarks) -> None:
    if place := place_of(key):
        remarks.warn(item, f"has no effect here; {place}")
    elif parameter_owners(key):
        remarks.warn(item, "has no effect here; it belongs under parameters")
    elif not key.startswith(_EXTENSIONS):
        remarks.unknown(item, "unknown key", did_you_mean(key, allowed))
