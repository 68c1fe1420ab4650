"""What a recipe means, read from its YAML without hubmerge's reader, planner or kernels; formulas are the oracle's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import yaml
from torch import Tensor

from hubmerge.merge.methods import METHODS
from hubmerge.merge.methods.method import Base, Scope, Settings
from tests.merge.methods.oracle import ORACLES

Document = Mapping[str, Any]
Model = Callable[[str], Tensor]

_NUMBER = re.compile(r"\.(\d+)\.")


class Reference:
    """The merges of a file, tensor by tensor.

    Attributes:
        root: The document that is the result: the last one.
    """

    def __init__(self, text: str, models: Callable[[str], Mapping[str, Tensor]], *, layers: int) -> None:
        self._documents = [document for document in yaml.safe_load_all(text.removeprefix("\ufeff")) if document]
        self._models = models
        self._layers = layers
        self.root = self._documents[-1]

    def layer_count(self) -> int:
        """Returns how many layers the result has."""
        return sum(length(slice_) for slice_ in self._slices(self.root))

    def tensor(self, document: Document, name: str) -> Tensor:
        """Returns an output tensor, rounded to the document's dtype; models are in fp32."""
        slice_, offset = self._place(document, name)
        depth = 0.0 if offset is None else 1.0 if length(slice_) == 1 else offset / (length(slice_) - 1)
        method = METHODS[document["merge_method"]]
        base = None if method.base is Base.DONOR else slice_.get("base_model") or document.get("base_model")
        tuned = [source for source in slice_["sources"] if source["model"] != base]
        based = [source for source in slice_["sources"] if source["model"] == base]
        first = (based or [{**slice_["sources"][0], "model": base}]) if base else []
        names = [_input_name(name, source, offset) for source in (*first, *tuned)]
        operands = [self._model(s["model"])(n) for s, n in zip((*first, *tuned), names, strict=True)]
        scopes = (slice_.get("parameters") or {}, document.get("parameters") or {})
        settings = Settings(
            shared=_values(document, scopes, Scope.SHARED, name, depth),
            inputs=tuple(
                _values(document, (source.get("parameters") or {}, *scopes), None, own, depth)
                for source, own in zip(tuned, names[len(first) :], strict=True)
            ),
        )
        result = operands[0]  # the base alone
        if tuned:
            seed = int(document.get("random_seed", 0))
            result = torch.from_numpy(ORACLES[method.name](operands, settings, seed=seed, name=name))
        stated = document.get("out_dtype") or document.get("dtype")
        return result.to(getattr(torch, stated.strip("`")) if stated else torch.float32)

    def _slices(self, document: Document) -> list[dict[str, Any]]:
        if "slices" in document:
            return list(document["slices"])
        whole = [{**model, "layer_range": [0, self._layers]} for model in _distinct(document["models"])]
        return [{"sources": whole}]

    def _place(self, document: Document, name: str) -> tuple[dict[str, Any], int | None]:
        slices, found = self._slices(document), _NUMBER.search(name)
        if found is None:
            return slices[0 if re.search("embed|wte|wpe", name) else -1], None
        offset = int(found[1])
        for slice_ in slices:
            if offset < length(slice_):
                return slice_, offset
            offset -= length(slice_)
        raise AssertionError(f"{name} lies beyond the last slice")

    def _model(self, name: str) -> Model:
        nested = next((document for document in self._documents if document.get("name") == name), None)
        if nested is None:
            return self._models(name).__getitem__
        return cache(lambda tensor: self.tensor(nested, tensor))


def length(slice_: Mapping[str, Any]) -> int:
    """Returns the number of layers of a slice."""
    start, stop = slice_["sources"][0]["layer_range"]
    return int(stop) - int(start)


def setting(stated: Any, name: str, depth: float) -> float | None:
    """Returns a parameter's value for a tensor; None where its filters are about others."""
    if isinstance(stated, list) and isinstance(stated[0], dict):
        cases = (case for case in stated if case.get("filter") in (None, "", "*") or case["filter"] in name)
        return next((setting(case["value"], name, depth) for case in cases), None)
    if not isinstance(stated, list):
        return float(stated)
    position = depth * (len(stated) - 1)
    below = int(position)
    above = min(below + 1, len(stated) - 1)
    return float(stated[below]) + (position - below) * (float(stated[above]) - float(stated[below]))


def _values(document: Document, scopes: tuple[Document, ...], scope: Scope | None, name: str, depth: float) -> Any:
    values: dict[str, Any] = {}
    for parameter in METHODS[document["merge_method"]].parameters:
        if (parameter.scope is Scope.SHARED) is (scope is Scope.SHARED):
            found = (setting(place[parameter.name], name, depth) for place in scopes if parameter.name in place)
            value = next((value for value in found if value is not None), parameter.default)
            values[parameter.name] = parameter.kind(value)
    return values


def _input_name(name: str, source: Mapping[str, Any], offset: int | None) -> str:
    return name if offset is None else _NUMBER.sub(f".{int(source['layer_range'][0]) + offset}.", name, count=1)


def _distinct(models: list[Document]) -> list[Document]:
    return [entry for index, entry in enumerate(models) if entry["model"] not in [e["model"] for e in models[:index]]]
