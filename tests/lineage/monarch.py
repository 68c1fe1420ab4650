"""The ancestry of AlphaMonarch-7B, as public material shows it, without its weights.

Mistral-7B-Merge-14-v0 merges fourteen models that are not told here: numbers stand for their names. What cards say in
words is told in other words.
"""

from __future__ import annotations

from tests.lineage.repos import Published, fenced

ROOT = "mlabonne/AlphaMonarch-7B"
MISTRAL = "mistralai/Mistral-7B-v0.1"
GATED = "janai-hq/trinity-v1"
MISSING = "mlabonne/NeuBeagle-7B"
PRESET = """\
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: bfloat16
"""


def _slerp(first: str, second: str, *, base: str) -> str:
    sources = "".join(f"      - model: {model}\n        layer_range: [0, 32]\n" for model in (first, second))
    return f"slices:\n  - sources:\n{sources}merge_method: slerp\nbase_model: {base}\n{PRESET}"


def _dare_ties(models: dict[str, tuple[float, float]], *, dtype: str) -> str:
    entries = "".join(
        f"  - model: {model}\n    parameters:\n      density: {density}\n      weight: {weight}\n"
        for model, (density, weight) in models.items()
    )
    tail = f"merge_method: dare_ties\nbase_model: {MISTRAL}\nparameters:\n  int8_mask: true\ndtype: {dtype}\n"
    return f"models:\n  - model: {MISTRAL}\n{entries}{tail}"


MONARCH_RECIPE = _dare_ties(
    {
        "mlabonne/OmniTruthyBeagle-7B-v0": (0.65, 0.36),
        "mlabonne/NeuBeagle-7B": (0.6, 0.34),
        "mlabonne/NeuralOmniBeagle-7B": (0.6, 0.3),
    },
    dtype="bfloat16",
)
OMNI_RECIPE = _dare_ties(
    {
        "mlabonne/BeagleSempra-7B": (0.65, 0.4),
        "mlabonne/BeagSake-7B": (0.6, 0.35),
        "shadowml/WestBeagle-7B": (0.6, 0.35),
    },
    dtype="float16",
)
FOURTEEN = [f"unnamed/mistral-7b-model-{number:02}" for number in range(1, 15)]


def _merge(repo_id: str, recipe: str, base_model: list[str], licence: str | None) -> Published:
    metadata: dict[str, object] = {"tags": ["merge", "mergekit", "lazymergekit"], "base_model": base_model}
    return Published(repo_id, metadata | ({"license": licence} if licence else {}), fenced(recipe))


def _tuned(repo_id: str, parent: str, licence: str, dataset: str | None = None) -> Published:
    metadata = {"license": licence, "base_model": parent, "tags": ["dpo"]}
    return Published(repo_id, metadata | ({"datasets": [dataset]} if dataset else {}))


def _original(repo_id: str, licence: str) -> Published:
    return Published(repo_id, {"license": licence})


REPOS = (
    _tuned(ROOT, "mlabonne/NeuralMonarch-7B", "cc-by-nc-4.0", "argilla/OpenHermes2.5-dpo-binarized-alpha"),
    _tuned("mlabonne/NeuralMonarch-7B", "mlabonne/Monarch-7B", "cc-by-nc-4.0", "jondurbin/truthy-dpo-v0.1"),
    _merge(
        "mlabonne/Monarch-7B",
        MONARCH_RECIPE,
        ["mlabonne/OmniTruthyBeagle-7B-v0", "mlabonne/NeuBeagle-7B", "mlabonne/NeuralOmniBeagle-7B"],
        "cc-by-nc-4.0",
    ),
    Published(
        "mlabonne/OmniTruthyBeagle-7B-v0",
        {"license": "cc-by-4.0", "tags": ["dpo"]},
        "A DPO fine-tune of [mlabonne/OmniBeagle-7B](https://huggingface.co/mlabonne/OmniBeagle-7B).\n",
    ),
    _tuned("mlabonne/NeuralOmniBeagle-7B", "mlabonne/OmniBeagle-7B", "cc-by-nc-4.0"),
    _merge(
        "mlabonne/OmniBeagle-7B",
        OMNI_RECIPE,
        ["mlabonne/BeagleSempra-7B", "mlabonne/BeagSake-7B", "shadowml/WestBeagle-7B"],
        "cc-by-nc-4.0",
    ),
    _original("mlabonne/BeagleSempra-7B", "cc-by-nc-4.0"),
    _merge(
        "mlabonne/BeagSake-7B",
        _slerp("mlabonne/BeagleSempra-7B", "shadowml/WestBeagle-7B", base="mlabonne/BeagleSempra-7B"),
        ["mlabonne/BeagleSempra-7B", "shadowml/WestBeagle-7B"],
        "cc-by-nc-4.0",
    ),
    Published(
        "shadowml/WestBeagle-7B",
        {
            "license": "cc-by-nc-4.0",
            "tags": ["merge", "mergekit"],
            "base_model": ["mlabonne/NeuralBeagle14-7B", "FelixChao/WestSeverus-7B-DPO-v2"],
        },
    ),
    _original("FelixChao/WestSeverus-7B-DPO-v2", "apache-2.0"),
    _tuned("mlabonne/NeuralBeagle14-7B", "mlabonne/Beagle14-7B", "cc-by-nc-4.0"),
    _merge(
        "mlabonne/Beagle14-7B",
        _slerp(
            "fblgit/UNA-TheBeagle-7b-v1",
            "argilla/distilabeled-Marcoro14-7B-slerp",
            base="fblgit/UNA-TheBeagle-7b-v1",
        ),
        ["fblgit/UNA-TheBeagle-7b-v1", "argilla/distilabeled-Marcoro14-7B-slerp"],
        "cc-by-nc-4.0",
    ),
    _original("fblgit/UNA-TheBeagle-7b-v1", "cc-by-nc-nd-4.0"),
    _tuned("argilla/distilabeled-Marcoro14-7B-slerp", "mlabonne/Marcoro14-7B-slerp", "cc-by-nc-4.0"),
    _merge(
        "mlabonne/Marcoro14-7B-slerp",
        _slerp(
            "AIDC-ai-business/Marcoroni-7B-v3",
            "EmbeddedLLM/Mistral-7B-Merge-14-v0.1",
            base="AIDC-ai-business/Marcoroni-7B-v3",
        ),
        ["AIDC-ai-business/Marcoroni-7B-v3", "EmbeddedLLM/Mistral-7B-Merge-14-v0.1"],
        "cc-by-nc-4.0",
    ),
    _original("AIDC-ai-business/Marcoroni-7B-v3", "cc-by-nc-4.0"),
    Published(
        "EmbeddedLLM/Mistral-7B-Merge-14-v0.1",
        {
            "license": "cc-by-nc-4.0",
            "tags": ["merge"],
            "base_model": ["EmbeddedLLM/Mistral-7B-Merge-14-v0", "janai-hq/trinity-v1"],
        },
        "**Note**: one of the parents may have been trained on contaminated data.\n\n"
        + fenced(
            _slerp(
                "EmbeddedLLM/Mistral-7B-Merge-14-v0",
                "janai-hq/trinity-v1",
                base="EmbeddedLLM/Mistral-7B-Merge-14-v0",
            )
        ),
    ),
    _original("janai-hq/trinity-v1", "apache-2.0"),
    _merge(
        "EmbeddedLLM/Mistral-7B-Merge-14-v0",
        _dare_ties(dict.fromkeys(FOURTEEN, (0.5, 0.08)), dtype="bfloat16"),
        FOURTEEN,
        "cc-by-nc-4.0",
    ),
    *(_original(model, "apache-2.0") for model in FOURTEEN),
    _original(MISTRAL, "apache-2.0"),
)
