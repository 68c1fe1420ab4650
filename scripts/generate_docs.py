"""Prints docs/recipes.md: the reference of the recipe language, from the records that the program itself uses.

python scripts/generate_docs.py > docs/recipes.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hubmerge.merge.methods import METHODS
from hubmerge.merge.methods.method import Base, Method, Parameter
from hubmerge.merge.recipe.keys import KEYS
from hubmerge.weights.dtypes import FLOAT_CODES

TITLE = """\
# The recipe reference

A recipe is YAML, in the language of mergekit. This page is made by `scripts/generate_docs.py` from the tables that the
program reads recipes with; [where hubmerge differs on purpose](differences.md), [tokenizers](tokenizers.md),
[adapters](lora.md), [modules](architectures.md) and [trees of merges](trees.md) have pages of their own.
"""

VALUES = """\
## Values of parameters

A value is a number or a flag (`true`, `false`); numbers may be written as text (`1e-5`). In its place may stand

* a list, spread evenly over the layers of a slice and interpolated: `[0, 0.5, 1]`; tensors outside the layers take the
  first value, and so does the first layer of a slice, unless it is the only one, which takes the last;
* a list of filters, of which the first that matches counts: `[{filter: mlp, value: 0.3}, {value: 1}]`. A filter is text
  that the tensor's name contains; without one, or with `"*"`, it matches every tensor.

The nearest place that says something about a tensor wins: the model's own `parameters`, then the slice's, then the
recipe's, then the default.
"""

BASES = {
    Base.REQUIRED: "`base_model` is required and is the first model of the merge.",
    Base.OPTIONAL: "`base_model` may be given, and is the first model of the merge then.",
    Base.DONOR: "`base_model` gives config.json and the tokenizer only.",
}


def page() -> str:
    """Returns the text of docs/recipes.md."""
    parts = [TITLE, *_keys(), VALUES, "## Methods\n", *map(_method, METHODS.values())]
    return "\n".join(parts)


def _keys() -> Iterable[str]:
    yield "## Keys\n"
    for place, keys in KEYS.items():
        yield f"### {place}\n"
        yield _table(("key", "meaning"), [(f"`{name}`", meaning) for name, meaning in keys.items()])
    names = ", ".join(f"`{name}`" for name in FLOAT_CODES)
    yield f"A dtype is one of {names}."
    yield "Arithmetic is fp32, or fp64 where an input, `dtype` or `out_dtype` is fp64; its result is rounded once."
    yield "A model is `org/name`, `org/name@revision`, a folder, or any of these with `+adapter`.\n"


def _method(method: Method) -> str:
    source = f" [Source]({method.paper})." if method.paper else ""
    lines = [
        f"### {method.name}\n",
        f"{method.title}. {method.summary}{source}\n",
        f"{BASES[method.base]} {_count(method)}\n",
    ]
    if method.parameters:
        lines.append(_table(("parameter", "of", "default", "meaning"), map(_parameter, method.parameters)))
    return "\n".join(lines)


def _count(method: Method) -> str:
    included = "" if method.base is Base.DONOR else ", a base included"
    most = "or more" if method.most is None else f"to {method.most}"
    count = f"{method.least}" if method.least == method.most else f"{method.least} {most}"
    return f"It takes {count} {'model' if count == '1' else 'models'}{included}."


def _parameter(parameter: Parameter) -> tuple[str, ...]:
    default = "required" if parameter.default is None else f"`{str(parameter.default).lower()}`"
    return f"`{parameter.name}`", parameter.scope.value, default, parameter.summary


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
