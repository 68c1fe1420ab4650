"""What can be said of a recipe before its models are known: their number, the base, missing parameters, slices."""

from __future__ import annotations

from collections.abc import Sequence

from hubmerge.errors import RecipeError
from hubmerge.merge.methods import METHODS
from hubmerge.merge.methods.method import Base, Method
from hubmerge.merge.recipe.effective import common_scopes, parameters_of
from hubmerge.merge.recipe.fields import Remarks
from hubmerge.merge.recipe.model import Parameters, Recipe, Slice, SliceSource, Source


def without_repetitions(sources: Sequence[SliceSource], remarks: Remarks) -> tuple[SliceSource, ...]:
    """Returns the sources of a slice, each model with the same layers once: listing it twice does not double it."""
    kept: list[SliceSource] = []
    for source in sources:
        first = next((other for other in kept if _same_input(source, other)), None)
        if first is None:
            kept.append(source)
        else:
            remarks.warnings.append(f"{source.where}: the same model as {first.where}; it counts once")
    return tuple(kept)


def check_slices(recipe: Recipe, remarks: Remarks) -> None:
    """Refuses a recipe whose slices its method cannot merge, whatever the models hold."""
    method = METHODS[recipe.method]
    for slice_ in recipe.slices:
        base = slice_.base_model or recipe.base_model
        _check_base(method, base, slice_)
        _check_count(method, base, slice_)
        _check_lengths(slice_)
        _check_stated(method, base, slice_, common_scopes(recipe, slice_))
        _warn_of_base(method, base, slice_, remarks)


def _same_input(one: SliceSource, other: SliceSource) -> bool:
    return one.model == other.model and one.layer_range == other.layer_range


def _check_base(method: Method, base: Source | None, slice_: Slice) -> None:
    if method.base is Base.REQUIRED and base is None:
        raise RecipeError(f"{slice_.where}: {method.name} needs a base_model")


def _check_count(method: Method, base: Source | None, slice_: Slice) -> None:
    listed = len(slice_.sources)
    unlisted = _is_operand(method, base) and all(source.model != base for source in slice_.sources)
    count = listed + unlisted
    if count < method.least or (method.most is not None and count > method.most):
        with_base = ", the base_model included" if _is_operand(method, base) else ""
        raise RecipeError(f"{slice_.where}: {method.name} takes {_wanted(method)}{with_base}, not {count}")


def _is_operand(method: Method, base: Source | None) -> bool:
    return base is not None and method.base is not Base.DONOR


def _wanted(method: Method) -> str:
    most = "" if method.most is None else f" and at most {method.most}"
    count = f"exactly {method.least}" if method.least == method.most else f"at least {method.least}{most}"
    return f"{count} model{'' if (method.most or method.least) == 1 else 's'}"


def _check_lengths(slice_: Slice) -> None:
    ranges = [source.layer_range for source in slice_.sources if source.layer_range is not None]
    lengths = [stop - start for start, stop in ranges]
    for source, length in zip(slice_.sources, lengths, strict=False):
        if length != lengths[0]:
            first = slice_.sources[0].where
            raise RecipeError(f"{source.where}: gives {length} layers, and {first} gives {lengths[0]}")


def _check_stated(method: Method, base: Source | None, slice_: Slice, common: tuple[Parameters, ...]) -> None:
    """Refuses a parameter without a default that stands nowhere; filters are looked at when tensors are known."""
    for name in _required(method, shared=True):
        if not any(name in scope for scope in common):
            raise RecipeError(f"{slice_.where}: {name} is missing; {method.name} has no default for it")
    for source in _tuned_sources(method, base, slice_):
        for name in _required(method, shared=False):
            if not any(name in scope for scope in (source.parameters, *common)):
                raise RecipeError(f"{source.where}: {name} is missing; {method.name} needs it for each model")


def _required(method: Method, *, shared: bool) -> list[str]:
    return [parameter.name for parameter in parameters_of(method, shared=shared) if parameter.default is None]


def _tuned_sources(method: Method, base: Source | None, slice_: Slice) -> list[SliceSource]:
    """Returns the sources that have parameters of their own: all but a base that is an operand."""
    return [source for source in slice_.sources if not (_is_operand(method, base) and source.model == base)]


def _warn_of_base(method: Method, base: Source | None, slice_: Slice, remarks: Remarks) -> None:
    tuned = _tuned_sources(method, base, slice_)
    for source in slice_.sources:
        if source not in tuned and source.parameters:
            names = " and ".join(source.parameters)
            have = "has" if len(source.parameters) == 1 else "have"
            remarks.warnings.append(f"{source.where}: {names} {have} no effect on the base model")
