"""Reads `parameters` of a recipe, a slice, a module or a model."""

from __future__ import annotations

from collections.abc import Mapping

from hubmerge.merge.methods import METHODS
from hubmerge.merge.methods.method import Method, Parameter, Scope
from hubmerge.merge.recipe.fields import (
    Remarks,
    did_you_mean,
    entries,
    fault,
    flag,
    mapping,
    number,
    text,
    whole_number,
)
from hubmerge.merge.recipe.keys import CASE_KEYS
from hubmerge.merge.recipe.language import check_keys, parameter_owners, place_of
from hubmerge.merge.recipe.model import Parameters
from hubmerge.merge.recipe.yaml_tree import Item
from hubmerge.merge.settings import Case, Constant, Filtered, Gradient, Setting

_EVERY_TENSOR = ("", "*")

_VALUE_READERS = {float: number, int: whole_number, bool: flag}


def read_parameters(item: Item | None, method: Method, remarks: Remarks, *, of_model: bool = False) -> Parameters:
    """Returns the settings of a `parameters` mapping, those left out that have no effect where they stand.

    Args:
        item: None where the recipe has no such mapping.
        method: Whose parameters they are.
        remarks: Takes what has no effect.
        of_model: Whether the mapping belongs to one model, where shared parameters have no effect.
    """
    if item is None:
        return {}
    settings: dict[str, Setting] = {}
    for name, value in mapping(item).items():
        parameter = method.parameter(name)
        if parameter is None:
            _foreign(name, value, method, remarks)
        elif of_model and parameter.scope is Scope.SHARED:
            remarks.warn(value, f"has no effect here; {name} is one value for all models and belongs above them")
        else:
            settings[name] = read_setting(value, parameter, remarks)
    return settings


def read_setting(item: Item, parameter: Parameter, remarks: Remarks) -> Setting:
    """Returns what a recipe says about one parameter."""
    if isinstance(item.value, Mapping):
        return Filtered((_case(item, parameter, remarks),))
    listed = entries(item) if isinstance(item.value, tuple) else ()
    conditional = [isinstance(entry.value, Mapping) for entry in listed]
    if any(conditional) and not all(conditional):
        raise fault(item, "is either a list of values over the layers or a list of filters, not both")
    if not any(conditional):
        return _plain(item, parameter)
    return Filtered(tuple(_case(entry, parameter, remarks) for entry in listed))


def _case(item: Item, parameter: Parameter, remarks: Remarks) -> Case:
    found = check_keys(item, CASE_KEYS, remarks)
    if "value" not in found:
        raise fault(item, "a filter needs its `value`")
    substring = text(found["filter"]) if "filter" in found and found["filter"].value != "" else ""
    return Case(None if substring in _EVERY_TENSOR else substring, _plain(found["value"], parameter))


def _plain(item: Item, parameter: Parameter) -> Constant | Gradient:
    if isinstance(item.value, tuple):
        return Gradient(tuple(_constant(entry, parameter).value for entry in entries(item)))
    return _constant(item, parameter)


def _constant(item: Item, parameter: Parameter) -> Constant:
    return Constant(_VALUE_READERS[parameter.kind](item))


def _foreign(name: str, item: Item, method: Method, remarks: Remarks) -> None:
    """Warns about another method's parameter and a key of another place; refuses what is known nowhere."""
    own = [parameter.name for parameter in method.parameters]
    owners = parameter_owners(name)
    if owners:
        others = f"; {' and '.join(owners)} {'has' if len(owners) == 1 else 'have'} it" if len(owners) < 3 else ""
        remarks.warn(item, f"has no effect: {method.name} has no parameter {name}{others}")
    elif place := place_of(name):
        remarks.warn(item, f"has no effect here; {place}")
    else:
        everywhere = dict.fromkeys(parameter.name for other in METHODS.values() for parameter in other.parameters)
        remarks.unknown(item, "unknown parameter", did_you_mean(name, own) or did_you_mean(name, everywhere))
