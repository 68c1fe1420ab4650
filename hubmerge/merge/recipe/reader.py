"""Reads one recipe of a file: what is merged, in which slices, how, and into which dtype."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from hubmerge.merge.methods import METHODS
from hubmerge.merge.methods.method import Method
from hubmerge.merge.recipe.checks import check_slices, without_repetitions
from hubmerge.merge.recipe.fields import Remarks, did_you_mean, entries, fault, mapping, text, whole_number
from hubmerge.merge.recipe.keys import MODEL_KEYS, MODULE_KEYS, RECIPE_KEYS, SLICE_KEYS, SLICE_SOURCE_KEYS
from hubmerge.merge.recipe.language import check_keys, one_form, refuse_other_files
from hubmerge.merge.recipe.mixture import METHOD, PROMPTED_MODES, is_mixture, mixture_keys, read_mixture
from hubmerge.merge.recipe.model import Parameters, Recipe, Slice, SliceSource, Source
from hubmerge.merge.recipe.parameters import read_parameters
from hubmerge.merge.recipe.references import Documents
from hubmerge.merge.recipe.tokenizer_choice import read_chat_template, read_tokenizer
from hubmerge.merge.recipe.yaml_tree import Item
from hubmerge.merge.settings import layered
from hubmerge.weights.dtypes import FLOAT_CODES
from hubmerge.weights.reference import ModelRef

_SHORT_DTYPES: Mapping[str, str] = {
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
    "float": "float32",
    "fp64": "float64",
    "double": "float64",
}
_MAX_SEED = 2**63 - 1
ROUNDINGS = ("nearest", "stochastic")


class RecipeReader:
    """Reads the recipes of one file.

    Attributes:
        documents: The file's documents, which are read by this reader when something refers to them.
    """

    def __init__(self, items: list[Item], *, text: str, remarks: Remarks) -> None:
        self._text = text
        self._remarks = remarks
        self.documents = Documents(items, self.read)

    def read(self, item: Item) -> Recipe:
        """Returns the recipe that a mapping spells out."""
        refuse_other_files(item)
        if is_mixture(item):
            return self._mixture(item)
        method = _method(item)
        found = check_keys(item, RECIPE_KEYS, self._remarks)
        form = one_form(item, found)
        recipe = Recipe(
            method=method.name,
            slices=() if form == "modules" else self._slices(form, found[form], method),
            whole_models=form == "models",
            base_model=self._source_at("base_model", found),
            parameters=read_parameters(found.get("parameters"), method, self._remarks),
            dtype=_dtype(found.get("dtype"), self._remarks),
            out_dtype=_dtype(found.get("out_dtype"), self._remarks),
            tokenizer=read_tokenizer(found, self._source, self._remarks),
            chat_template=read_chat_template(found.get("chat_template")),
            lora=self._lora(found.get("lora")),
            rounding=_rounding(found.get("rounding")),
            name=text(found["name"]) if "name" in found else None,
            seed=_seed(found, self._remarks),
            text=self._text,
            where=item.where,
        )
        if form == "modules":
            return replace(recipe, modules=self._modules(found[form], recipe, found.get("parameters")))
        check_slices(recipe, self._remarks)
        return recipe

    def _mixture(self, item: Item) -> Recipe:
        found = mixture_keys(item, self._remarks)
        return Recipe(
            method=METHOD,
            slices=(),
            whole_models=False,
            base_model=self._source_at("base_model", found),
            parameters={},
            dtype=_dtype(found.get("dtype"), self._remarks),
            out_dtype=_dtype(found.get("out_dtype"), self._remarks),
            chat_template=read_chat_template(found.get("chat_template")),
            mixture=read_mixture(item, found, self._source, self._remarks),
            name=text(found["name"]) if "name" in found else None,
            seed=_seed(found, self._remarks),
            text=self._text,
            where=item.where,
        )

    def _source(self, item: Item) -> Source:
        source = self.documents.find(item, self._remarks)
        if isinstance(source, Recipe) and source.mixture and source.mixture.gate_mode in PROMPTED_MODES:
            problem = "a mixture whose routers come from prompts cannot stand for a model"
            raise fault(item, f"{problem}; make it first, and write its name here")
        return source

    def _source_at(self, key: str, found: Mapping[str, Item]) -> Source | None:
        return self._source(found[key]) if key in found else None

    def _lora(self, item: Item | None) -> ModelRef | None:
        if item is None:
            return None
        source = self._source(item)
        if not isinstance(source, ModelRef) or source.adapter is not None:
            raise fault(item, "must be one adapter: a name or a folder")
        return source

    def _modules(self, item: Item, whole: Recipe, shared: Item | None) -> dict[str, Recipe]:
        if not mapping(item):
            raise fault(item, "names no module")
        return {name: self._module(module, whole, shared) for name, module in mapping(item).items()}

    def _module(self, item: Item, whole: Recipe, shared: Item | None) -> Recipe:
        """Returns how a module is made: what it does not say itself is as in the recipe that it belongs to.

        Args:
            item: The module.
            whole: The recipe that it belongs to.
            shared: The parameters of that recipe.
        """
        found = check_keys(item, MODULE_KEYS, self._remarks)
        method = _method(item) if "merge_method" in found else METHODS[whole.method]
        form = one_form(item, found, ("models", "slices"))
        dtype, out_dtype = (_dtype(found.get(key), self._remarks) for key in ("dtype", "out_dtype"))
        recipe = replace(
            whole,
            method=method.name,
            slices=self._slices(form, found[form], method),
            whole_models=form == "models",
            base_model=self._source_at("base_model", found) or whole.base_model,
            parameters=_inherited(read_parameters(found.get("parameters"), method, self._remarks), shared, method),
            dtype=dtype or whole.dtype,
            out_dtype=out_dtype or (None if dtype else whole.out_dtype),
            tokenizer=None,
            chat_template=None,
            name=None,
            where=item.where,
        )
        check_slices(recipe, self._remarks)
        return recipe

    def _slices(self, form: str, item: Item, method: Method) -> tuple[Slice, ...]:
        if form == "slices":
            return tuple(self._slice(entry, method) for entry in entries(item))
        sources = [self._slice_source(entry, MODEL_KEYS, method) for entry in entries(item)]
        return (Slice(without_repetitions(sources, self._remarks), None, {}, where=item.where),)

    def _slice(self, item: Item, method: Method) -> Slice:
        found = check_keys(item, SLICE_KEYS, self._remarks)
        if "sources" not in found:
            raise fault(item, "a slice needs its sources")
        sources = [self._slice_source(entry, SLICE_SOURCE_KEYS, method) for entry in entries(found["sources"])]
        return Slice(
            sources=without_repetitions(sources, self._remarks),
            base_model=self._source_at("base_model", found),
            parameters=read_parameters(found.get("parameters"), method, self._remarks),
            where=item.where,
        )

    def _slice_source(self, item: Item, keys: Collection[str], method: Method) -> SliceSource:
        found = check_keys(item, keys, self._remarks)
        if "model" not in found:
            raise fault(item, "an entry needs its model")
        if "layer_range" in keys and "layer_range" not in found:
            raise fault(item, "a model of a slice needs its layer_range, as in [0, 32]")
        return SliceSource(
            model=self._source(found["model"]),
            layer_range=_layer_range(found["layer_range"]) if "layer_range" in found else None,
            parameters=read_parameters(found.get("parameters"), method, self._remarks, of_model=True),
            where=item.where,
        )


def _inherited(own: Parameters, shared: Item | None, method: Method) -> Parameters:
    """Returns a module's parameters with those that its recipe has for all modules, as far as its method knows them."""
    common = read_parameters(shared, method, Remarks(lenient=True))
    both = {name: layered(setting, common[name]) for name, setting in own.items() if name in common}
    return {**common, **own, **both}


def _method(item: Item) -> Method:
    hint = f"The methods are {', '.join(METHODS)}."
    stated = mapping(item).get("merge_method")
    if stated is None:
        raise fault(item, "merge_method is missing", hint=hint)
    name = text(stated)
    if name not in METHODS:
        raise fault(stated, f"hubmerge does not know the method {name}{did_you_mean(name, METHODS)}", hint=hint)
    return METHODS[name]


def _layer_range(item: Item) -> tuple[int, int]:
    bounds = entries(item)
    if len(bounds) != 2:
        raise fault(item, f"takes the first layer and the one after the last, not {len(bounds)} numbers")
    start, stop = whole_number(bounds[0]), whole_number(bounds[1])
    if start < 0 or stop < 0:
        raise fault(item, f"[{start}, {stop}] counts from the end; layers are counted from 0, as in [0, 32]")
    if start >= stop:
        raise fault(item, f"[{start}, {stop}] holds no layer: the second number is the layer after the last")
    return start, stop


def _dtype(item: Item | None, remarks: Remarks) -> str | None:
    """Returns a dtype's name; `torch.`, short names and the backticks of a badly copied model card are seen through."""
    if item is None:
        return None
    written = text(item)
    name = written.strip("` ").removeprefix("torch.").lower()
    name = _SHORT_DTYPES.get(name, name)
    if name not in FLOAT_CODES:
        raise fault(item, f"must be one of {', '.join(FLOAT_CODES)}, not {written}{did_you_mean(name, FLOAT_CODES)}")
    if "`" in written:
        remarks.warn(item, f"{written} is read as {name}")
    return name


def _rounding(item: Item | None) -> str:
    if item is None:
        return ROUNDINGS[0]
    if text(item) not in ROUNDINGS:
        raise fault(item, f"must be {' or '.join(ROUNDINGS)}, not {text(item)}{did_you_mean(text(item), ROUNDINGS)}")
    return text(item)


def _seed(found: Mapping[str, Item], remarks: Remarks) -> int:
    if "seed" in found and "random_seed" in found:
        raise fault(found["random_seed"], "seed says it already; a recipe takes one of them")
    if "random_seed" in found:
        remarks.warn(found["random_seed"], "taken as the seed; mergekit ignores this key")
    item = found.get("seed", found.get("random_seed"))
    if item is None:
        return 0
    seed = whole_number(item)
    if not 0 <= seed <= _MAX_SEED:
        raise fault(item, f"must be between 0 and 2^63 - 1, not {seed}")
    return seed
