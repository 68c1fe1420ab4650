"""Statistics collected while a merge runs, without reading anything of the parents twice."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hubmerge.diagnostics.diagnostics import Cell, Diagnostics, NonFinite, gather
from hubmerge.diagnostics.finite import count_non_finite, count_non_finite_values
from hubmerge.diagnostics.heat_map import import_ahead
from hubmerge.diagnostics.operands import model_names, operand_names
from hubmerge.diagnostics.roles import role_of
from hubmerge.diagnostics.statistics import Sums, measure, sampled, sums_from_json, sums_to_json
from hubmerge.errors import MergeError
from hubmerge.merge.expr import Load, Merge
from hubmerge.merge.layers import LayerStack, layer_index, main_stack
from hubmerge.merge.methods.method import Block
from hubmerge.merge.plan import OutputTensor, Plan, ShardPlan
from hubmerge.merge.watch import Bytes, Inputs, Values
from hubmerge.weights.dtypes import is_float

NOTES_FORMAT = 1


@dataclass
class _Seen:
    """What is known of one tensor; filled by the thread that makes it."""

    sums: Sums | None = None
    count: int = 0
    culprits: list[int] = field(default_factory=list)


class Collector:
    """Watches the tensors of one merge.

    Args:
        measures: Whether statistics are wanted; NaN and infinity are looked for in any case.
        allows_nan: Whether a tensor may hold NaN or infinity that its models or the merge put there.
    """

    def __init__(self, plan: Plan, *, measures: bool = True, allows_nan: bool = False) -> None:
        self._plan = plan
        self._measures = measures
        self._allows_nan = allows_nan
        self._names = operand_names(plan, plan.tensors)
        self._models = model_names(plan.parents)
        self._seen: dict[str, _Seen] = {}

    def begin(self) -> None:
        """Gets ready, while there is other work, what will draw the statistics, if there will be any."""
        if self._measures and any(map(_is_comparison, self._plan.tensors)):
            import_ahead()

    def watch(self, tensor: OutputTensor) -> TensorWatch:
        """Returns what looks at a tensor while it is made."""
        seen = self._seen[tensor.info.name] = _Seen()
        return TensorWatch(tensor, seen, self.operands_of(tensor), measures=self._measures, allows_nan=self._allows_nan)

    def operands_of(self, tensor: OutputTensor) -> tuple[str, ...]:
        """Returns the names of what the tensor is made from."""
        expr = tensor.expr
        if isinstance(expr, Load):
            return (self._models[expr.parent],)
        return self._names.get(tensor.info.name, ("its model",))

    def notes(self, shard: ShardPlan) -> bytes:
        """Returns what has been found in a finished shard, for a later run that goes on from it."""
        tensors = {tensor.info.name: _to_json(self._seen[tensor.info.name]) for tensor in shard.tensors}
        return json.dumps({"format": NOTES_FORMAT, "tensors": tensors}, separators=(",", ":")).encode()

    def take_up(self, shard: ShardPlan, notes: bytes) -> bool:
        """Takes over what an earlier run found in a shard; returns whether it could be read."""
        try:
            content = json.loads(notes)
            if content["format"] != NOTES_FORMAT:
                return False
            found = {
                tensor.info.name: _from_json(content["tensors"][tensor.info.name], models=len(self.operands_of(tensor)))
                for tensor in shard.tensors
            }
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return False
        self._seen.update(found)
        return True

    def diagnostics(self) -> Diagnostics:
        """Returns what has been found in all tensors so far; the order in which they were made does not matter."""
        plan = self._plan
        stack = main_stack((tensor.info.name for tensor in plan.tensors), plan.config)
        merged = [tensor for tensor in plan.tensors if isinstance(tensor.expr, Merge)]
        measured = [
            (tensor, seen.sums) for tensor in merged if (seen := self._seen.get(tensor.info.name)) and seen.sums
        ]
        return Diagnostics(
            method=plan.recipe.method,
            layer_count=plan.layer_count,
            cells=gather(self._cell(tensor, sums, stack) for tensor, sums in measured),
            tensors=sum(1 for _ in plan.tensors),
            merged=len(merged),
            measured=len(measured),
            elements=sum(tensor.info.elements for tensor in merged),
            sampled=sum(sums.elements for _, sums in measured),
            non_finite=tuple(
                self._non_finite(tensor, seen)
                for tensor in plan.tensors
                if (seen := self._seen.get(tensor.info.name)) and seen.count
            ),
        )

    def _cell(self, tensor: OutputTensor, sums: Sums, stack: LayerStack | None) -> Cell:
        return cell_of(tensor, self._names[tensor.info.name], sums, stack)

    def _non_finite(self, tensor: OutputTensor, seen: _Seen) -> NonFinite:
        names = self.operands_of(tensor)
        return NonFinite(tensor.info.name, _named(names, seen.culprits), seen.count, is_copied=_has_one_source(tensor))


def clean_notes(shard: ShardPlan) -> bytes:
    """Returns the notes on a shard in which nothing was measured, and nothing is wrong."""
    tensors = {tensor.info.name: _to_json(_Seen()) for tensor in shard.tensors}
    return json.dumps({"format": NOTES_FORMAT, "tensors": tensors}, separators=(",", ":")).encode()


class TensorWatch:
    """Looks at one tensor; what it finds goes into `seen`."""

    def __init__(
        self, tensor: OutputTensor, seen: _Seen, names: Sequence[str], *, measures: bool, allows_nan: bool
    ) -> None:
        self._tensor = tensor
        self._seen = seen
        self._names = names
        self._samples = sampled(tensor.info.shape) if measures and _is_comparison(tensor) else []
        self._allows_nan = allows_nan

    def computed(self, block: Block, result: Bytes, inputs: Inputs) -> None:
        """Measures what of the sample begins in the block, and counts what is not finite."""
        if count := count_non_finite(result, self._tensor.info.dtype):
            self._find_culprits(count, inputs.operands(block))
        for sample in self._samples:
            if block.start <= sample.start < block.stop:
                sums = measure(inputs.operands(sample), inputs.kept(sample))
                self._seen.sums = sums if self._seen.sums is None else self._seen.sums + sums

    def copied(self, data: Bytes) -> None:
        """Counts what is not finite."""
        dtype = self._tensor.info.dtype
        if is_float(dtype) and (count := count_non_finite(data, dtype)):
            self._seen.count += count
            self._seen.culprits = [self._seen.count]

    def finish(self) -> None:
        """Refuses a tensor whose merge put NaN or infinity into it; one that is only carried over is as it was.

        Raises:
            MergeError: It names the tensor, the model and the number of such values.
        """
        if self._seen.count and not self._allows_nan and not self._is_carried_over():
            raise _refusal(self._tensor, self._seen, _named(self._names, self._seen.culprits))

    def _is_carried_over(self) -> bool:
        return _has_one_source(self._tensor) and self._seen.culprits == [self._seen.count]

    def _find_culprits(self, count: int, operands: Sequence[Values]) -> None:
        self._seen.count += count
        known = self._seen.culprits or [0] * len(operands)
        counts = [count_non_finite_values(operand) for operand in operands]
        self._seen.culprits = [before + more for before, more in zip(known, counts, strict=True)]


def cell_of(tensor: OutputTensor, names: tuple[str, ...], sums: Sums, stack: LayerStack | None) -> Cell:
    """Returns the cell of one merged tensor."""
    assert isinstance(tensor.expr, Merge)
    name = tensor.info.name
    return Cell(layer_index(name, stack), role_of(name, stack), names, tensor.expr.has_base, sums)


def _is_comparison(tensor: OutputTensor) -> bool:
    return isinstance(tensor.expr, Merge) and len(tensor.expr.inputs) > 1


def _has_one_source(tensor: OutputTensor) -> bool:
    expr = tensor.expr
    (first, *others) = expr.inputs if isinstance(expr, Merge) else (expr,)
    return isinstance(first, Load) and not others


def _refusal(tensor: OutputTensor, seen: _Seen, culprits: Sequence[tuple[str, int]]) -> MergeError:
    name = tensor.info.name
    if culprits:
        found = " and ".join(f"{_values(count)} of {model}" for model, count in culprits)
        hint = "Leave that model out, or let such values pass: --allow-nan"
        return MergeError(f"{name}: NaN or infinity in {found}", hint=hint)
    advice = "Write dtype: bfloat16, whose range is larger" if tensor.info.dtype == "F16" else "Change the parameters"
    return MergeError(
        f"{name}: NaN or infinity in {_values(seen.count)} of the merge, but in none of its models",
        hint=f"{advice}, or let such values pass: --allow-nan",
    )


def _values(count: int) -> str:
    return f"{count:,} value{'s' * (count > 1)}"


def _named(names: Sequence[str], counts: Sequence[int]) -> tuple[tuple[str, int], ...]:
    return tuple((name, count) for name, count in zip(names, counts, strict=False) if count)


def _to_json(seen: _Seen) -> dict[str, Any]:
    return {
        "sums": None if seen.sums is None else sums_to_json(seen.sums),
        "count": seen.count,
        "culprits": seen.culprits,
    }


def _from_json(content: dict[str, Any], *, models: int) -> _Seen:
    sums, culprits = content["sums"], [operator.index(count) for count in content["culprits"]]
    return _Seen(
        None if sums is None else sums_from_json(sums, models=models), operator.index(content["count"]), culprits
    )
