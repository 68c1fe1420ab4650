"""Which value each parameter of a method has for one tensor: the nearest setting that says something about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hubmerge.errors import RecipeError
from hubmerge.merge.methods import METHODS
from hubmerge.merge.methods.method import Method, Parameter, Scope, Settings, Value
from hubmerge.merge.recipe.model import Parameters, Recipe, Slice, SliceSource
from hubmerge.merge.settings import resolve


def settings_for(
    recipe: Recipe,
    slice_: Slice,
    *,
    sources: Sequence[SliceSource],
    input_names: Sequence[str],
    output_name: str,
    depth: float,
) -> Settings:
    """Returns the values of all parameters for one tensor.

    The nearest setting wins: the model's own, then the slice's and the recipe's, then the default. A setting whose
    filters do not match the tensor is passed over.

    Args:
        recipe: The recipe of the tensor.
        slice_: One of its slices.
        sources: The inputs, without the base where it is the method's first operand.
        input_names: The tensor's name in each of `sources`; filters of a model's parameters look at it.
        output_name: The tensor's name in the result; filters of shared parameters look at it.
        depth: Position of its layer in the slice, 0 to 1.

    Raises:
        RecipeError: A parameter without a default has no setting that matches.
    """
    method = METHODS[recipe.method]
    common = common_scopes(recipe, slice_)
    inputs = zip(sources, input_names, strict=True)
    return Settings(
        shared=_values(method, common, shared=True, name=output_name, depth=depth, where=slice_.where),
        inputs=tuple(
            _values(method, (source.parameters, *common), shared=False, name=name, depth=depth, where=source.where)
            for source, name in inputs
        ),
    )


def common_scopes(recipe: Recipe, slice_: Slice) -> tuple[Parameters, ...]:
    """Returns where a setting for all models of a slice may stand, the nearest first."""
    return slice_.parameters, recipe.parameters


def parameters_of(method: Method, *, shared: bool) -> tuple[Parameter, ...]:
    """Returns the parameters that have one value for the merge, or those that have one for each model."""
    return tuple(parameter for parameter in method.parameters if (parameter.scope is Scope.SHARED) is shared)


def _values(
    method: Method, scopes: Sequence[Parameters], *, shared: bool, name: str, depth: float, where: str
) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for parameter in parameters_of(method, shared=shared):
        value = _nearest(parameter, scopes, tensor_name=name, depth=depth)
        if value is None:
            problem = f"no setting of {parameter.name} matches this tensor, and {method.name} has no default for it"
            raise RecipeError(f"{where}: {problem}")
        values[parameter.name] = value
    return values


def _nearest(parameter: Parameter, scopes: Iterable[Parameters], *, tensor_name: str, depth: float) -> Value | None:
    for scope in scopes:
        if parameter.name in scope:
            value = resolve(scope[parameter.name], tensor_name=tensor_name, depth=depth)
            if value is not None:
                return _as_kind(value, parameter)
    return parameter.default


def _as_kind(value: object, parameter: Parameter) -> Value:
    """Returns the value in its parameter's type; a gradient between whole numbers is cut to one."""
    converted: Value = parameter.kind(value)
    return converted
