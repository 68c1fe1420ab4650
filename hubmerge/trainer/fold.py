"""The trained adapter added to full-precision weights, in fp32, before the only rounding.

What it is added to are the weights themselves, or the merge that makes them while it is still unrounded; never weights
that were quantised for the training, whose noise is larger than what was learned.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_to_folder, open_merge
from hubmerge.merge.progress import Progress
from hubmerge.merge.recipe import Recipe
from hubmerge.merge.recipe.model import Slice, SliceSource
from hubmerge.trainer.load import Weights, load_model, quiet
from hubmerge.trainer.settings import DpoSettings
from hubmerge.trainer.state import RunFolder
from hubmerge.weights.reference import ModelRef


def untuned_recipe(settings: DpoSettings, sha: str | None) -> Recipe:
    """Returns the recipe of the model that is tuned: its own, or the copy of a checkpoint at a commit."""
    if isinstance(settings.model, Recipe):
        return settings.model
    return _copy_of(settings.model if sha is None else replace(settings.model, revision=sha))


def tuned_recipe(untuned: Recipe, adapter: Path, *, rounding: str) -> Recipe:
    """Returns the recipe of the tuned model: an adapter laid on what another recipe makes."""
    outer = untuned if untuned.lora is None else _copy_of(untuned)
    return replace(outer, lora=ModelRef(str(adapter.resolve())), rounding=rounding)


def quantised_recipe(folder: RunFolder, weights: Weights, *, precision: str, token: str | bool | None) -> Recipe:
    """Returns the recipe of what the training saw: the weights that NF4 stands for, written out once."""
    if not folder.quantised.is_dir():
        model = load_model(weights, quant="nf4", precision=precision, token=token)
        model.config.use_cache = True  # the training needs none; who generates text does
        partial = folder.quantised.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        with quiet():
            model.dequantize().save_pretrained(partial, max_shard_size="4GB")
        partial.rename(folder.quantised)
    return _copy_of(ModelRef(str(folder.quantised.resolve())))


def fold(recipe: Recipe, folder: RunFolder, options: MergeOptions, progress: Progress) -> Path:
    """Returns the folder of the tuned model, made unless an earlier run did."""
    with open_merge(recipe, options) as merge:
        target = folder.folded(fingerprint(merge.plan))
    if not (target / "config.json").is_file():
        merge_to_folder(recipe, target, options=options, progress=progress)
    return target


def _copy_of(model: ModelRef | Recipe) -> Recipe:
    source = SliceSource(model, layer_range=None, parameters={})
    return Recipe(
        method="passthrough",
        slices=(Slice((source,), None, {}),),
        whole_models=True,
        base_model=None,
        parameters={},
    )
