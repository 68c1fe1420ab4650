"""Which value each parameter of a method has for one tensor: the nearest setting that says something about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hubmerge.errors import RecipeError
from hubmerge.merge.methods import METHODS
from hubmerge.merge.methods.method import Method, Parameter, Scope, Settings, Value
from hubmerge.merge.recipe.model import ModuleRecipe, Parameters, Recipe, Slice, SliceSource
from hubmerge.merge.settings import resolve


def settings_for(
    recipe: Recipe,
    slice_: Slice,
    *,
    sources: Sequence[SliceSource],
    input_names: Sequence[str],
    output_name: str,
    depth: float,
    module: ModuleRecipe | None = None,
) -> Settings:
    """Returns the values of all parameters for one tensor.

    The nearest setting wins: the model's own, then the slice's, the module's and the recipe's, then the default. A
    setting whose filters do not match the tensor is passed over.

    Args:
        recipe: The recipe of the tensor.
        slice_: One of its slices.
        sources: The inputs, without the base where it is the method's first operand.
        input_names: The tensor's name in each of `sources`; filters of a model's parameters look at it.
        output_name: The tensor's name in the result; filters of shared parameters look at it.
        depth: Position of its layer in the slice, 0 to 1.
        module: The module that `slice_` belongs to, if the recipe has modules.

    Raises:
        RecipeError: A parameter without a default has no setting that matches.
    """
    method = METHODS[recipe.method]
    scopes = common_scopes(recipe, slice_, module)

    def value(parameter: Parameter, name: str, own: Parameters, where: str) -> Value:
        found = _nearest(parameter, (own, *scopes), tensor_name=name, depth=depth)
        if found is None:
            raise RecipeError(f"{where}: {_lacks(parameter, method)}")
        return found

    return Settings(
        shared={p.name: value(p, output_name, {}, slice_.where) for p in parameters_of(method, shared=True)},
        inputs=tuple(
            {p.name: value(p, name, source.parameters, source.where) for p in parameters_of(method, shared=False)}
            for source, name in zip(sources, input_names, strict=True)
        ),
    )


def common_scopes(recipe: Recipe, slice_: Slice, module: ModuleRecipe | None) -> tuple[Parameters, ...]:
    """Returns where a setting for all models of a slice may stand, the nearest first."""
    return slice_.parameters, {} if module is None else module.parameters, recipe.parameters


def parameters_of(method: Method, *, shared: bool) -> tuple[Parameter, ...]:
    """Returns the parameters that have one value for the merge, or those that have one for each model."""
    return tuple(parameter for parameter in method.parameters if (parameter.scope is Scope.SHARED) is shared)


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


def _lacks(parameter: Parameter, method: Method) -> str:
    return f"no setting of {parameter.name} matches this tensor, and {method.name} has no default for it"
