"""The recipe language: YAML → Recipe, and the value of every parameter for every tensor."""

from hubmerge.merge.recipe.effective import settings_for
from hubmerge.merge.recipe.load import load_recipe
from hubmerge.merge.recipe.mixture import PROMPTED_MODES
from hubmerge.merge.recipe.model import (
    Expert,
    Mixture,
    ModelToken,
    Parameters,
    Recipe,
    Slice,
    SliceSource,
    Source,
    TokenChoice,
    TokenizerChoice,
    ZeroToken,
)

__all__ = [
    "PROMPTED_MODES",
    "Expert",
    "Mixture",
    "ModelToken",
    "Parameters",
    "Recipe",
    "Slice",
    "SliceSource",
    "Source",
    "TokenChoice",
    "TokenizerChoice",
    "ZeroToken",
    "load_recipe",
    "settings_for",
]
