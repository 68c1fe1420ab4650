"""A model run on a few prompts with one layer of its weights in memory at a time, in fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hubmerge.merge.expr import Routing

if TYPE_CHECKING:
    from torch import Tensor, nn


class _Enough(Exception):
    """The last layer's input is known; nothing that follows is needed."""


def layer_inputs(
    routing: Routing,
    embedded: Tensor,
    mask: Tensor,
    weights: Iterator[Mapping[str, Tensor]],
    *,
    summary: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """Returns a summary of what goes into each layer.

    transformers' own code runs; only its decoder layers get weights, and each loses them when it is done.

    Args:
        routing: Gives the model's config.json.
        embedded: `(prompts, tokens, hidden)`.
        mask: `(prompts, tokens)`, 0 for filling on the left.
        weights: Of each layer but the last, by their names in it, flat; taken when the layer is reached.
        summary: Is given a layer's input, which has the shape of `embedded`, and must not keep it.
    """
    model = _without_weights(routing.config)
    inputs: list[Tensor] = []
    last = len(model.layers) - 1

    def before(number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        inputs.append(summary(args[0] if args else kwargs["hidden_states"]))
        if number == last:
            raise _Enough
        _fill(layer, next(weights))

    for number, layer in enumerate(model.layers):
        hook = _numbered(before, number)
        layer.register_forward_pre_hook(hook, with_kwargs=True)
        layer.register_forward_hook(_empty)
    try:
        model(inputs_embeds=embedded, attention_mask=mask.long(), use_cache=False)
    except _Enough:
        return inputs
    raise AssertionError("the last layer was never reached")


def _numbered(hook: Any, number: int) -> Any:
    return lambda layer, args, kwargs: hook(number, layer, args, kwargs)


def _without_weights(config: Mapping[str, Any]) -> Any:
    """Returns the model without its head, its parameters on no device; buffers such as rotary angles are real."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModel

    stated = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    from_config: Callable[[Any], Any] = AutoModel.from_config
    with init_empty_weights():
        model = from_config(AutoConfig.for_model(**stated, dtype="float32"))
    return model.requires_grad_(requires_grad=False).eval()


def _fill(layer: nn.Module, weights: Mapping[str, Tensor]) -> None:
    shapes = {name: parameter.shape for name, parameter in layer.named_parameters()}
    layer.load_state_dict({name: weights[name].view(shape) for name, shape in shapes.items()}, assign=True)


def _empty(layer: nn.Module, _args: Any, _output: Any) -> None:
    layer.to(device="meta")
