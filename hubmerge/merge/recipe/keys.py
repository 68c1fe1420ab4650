"""The keys of each place of a recipe, with what they mean in the words of the reference."""

from __future__ import annotations

from collections.abc import Mapping

RECIPE_KEYS = {
    "merge_method": "the method; required",
    "base_model": "the model that others are compared with, or that gives config.json and tokenizer; see the method",
    "models": "whole models, one entry each",
    "slices": "runs of layers, from the first layer of the result to the last",
    "modules": "parts of a model, each by a recipe of its own",
    "parameters": "values for all models and slices",
    "dtype": "dtype of the result; without it the smallest that holds all inputs",
    "out_dtype": "dtype of the result, where it is not `dtype`",
    "tokenizer": "the result's vocabulary; see [tokenizers](tokenizers.md)",
    "tokenizer_source": "short for `tokenizer: {source: ...}`",
    "chat_template": "`auto`, a known name, or Jinja",
    "name": "what other documents of the file call this merge; see [trees](trees.md)",
    "lora": "an adapter that is added to the result before it is rounded; see [adapters](lora.md)",
    "rounding": "`nearest`, or `stochastic`: up or down at random, so that small changes survive on average",
    "seed": "of random masks, 0 if it is not given",
    "random_seed": "the same",
}
MODEL_KEYS = {"model": "the model; required", "parameters": "values for this model alone"}
SLICE_SOURCE_KEYS = {
    "model": MODEL_KEYS["model"],
    "layer_range": "`[first, after the last]`, counted from 0; required",
    "parameters": MODEL_KEYS["parameters"],
}
SLICE_KEYS = {
    "sources": "models with the layers that they give, as many as each other; required",
    "base_model": "the base of this slice alone",
    "parameters": "values for this slice alone",
}
MODULE_KEYS = {
    "models": "whole models, one entry each",
    "slices": "runs of the module's layers",
    "merge_method": "the method of this module, where it is not the recipe's",
    "base_model": "the base of this module, where it is not the recipe's",
    "parameters": "values for this module alone",
    "dtype": "dtype of this module, where it is not the recipe's",
    "out_dtype": "the same, where it is not `dtype`",
}
TOKENIZER_KEYS = {
    "source": "`union`, `base` or a model",
    "tokens": "where single tokens come from",
    "pad_to_multiple_of": "rows are filled up to a multiple of this",
}
TOKEN_KEYS = {"source": "whose row the token gets", "force": "whether models that have the token get this row too"}
CASE_KEYS = {"filter": "text that the tensor's name contains", "value": "a value or a list of them; required"}
MIXTURE_KEYS = {
    "experts": "models whose feed-forward layers become experts, required; see [mixtures of experts](moe.md)",
    "gate_mode": "how the router starts out",
    "experts_per_token": "how many experts see each token; 2 if it is not given",
    "shared_experts": "experts that see every token",
    "architecture": "`mixtral`, `qwen` or `qwen3`; without it what fits the models",
}
EXPERT_KEYS = {
    "source_model": "the model; required",
    "positive_prompts": "texts that belong to the expert",
    "negative_prompts": "texts that do not",
    "noise_scale": "standard deviation of noise that is added to its weights, 0 if it is not given",
    "residual_scale": "factor of its `down_proj`, 1 if it is not given",
}

KEYS: Mapping[str, Mapping[str, str]] = {
    "A recipe": RECIPE_KEYS,
    "An entry of models": MODEL_KEYS,
    "An entry of slices": SLICE_KEYS,
    "An entry of sources": SLICE_SOURCE_KEYS,
    "A module": MODULE_KEYS,
    "tokenizer": TOKENIZER_KEYS,
    "An entry of tokenizer.tokens": TOKEN_KEYS,
    "An entry of a list of filters": CASE_KEYS,
    "A mixture of experts": MIXTURE_KEYS,
    "An entry of experts": EXPERT_KEYS,
}
"""All of them, by the place's heading in the reference."""
