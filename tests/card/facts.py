"""Facts of merges for the tests of cards."""

from __future__ import annotations

from hubmerge.card.facts import FileFacts, LicenceDecision, MergeFacts, Outcome, ParentFacts

RECIPE = """\
models:
  - model: mlabonne/OmniTruthyBeagle-7B-v0
    parameters: {density: 0.65, weight: 0.36}
  - model: mlabonne/NeuBeagle-7B
    parameters: {density: 0.6, weight: 0.34}
merge_method: dare_ties
base_model: mistralai/Mistral-7B-v0.1
dtype: bfloat16
"""

BASE = ParentFacts(
    label="mistralai/Mistral-7B-v0.1",
    role="base model",
    repo_id="mistralai/Mistral-7B-v0.1",
    sha="27d67f1b5f57dc0953326b2601d68371d40ea8da",
    license="apache-2.0",
    languages=("en",),
    gated=True,
    is_base=True,
)
OMNI = ParentFacts(
    label="mlabonne/OmniTruthyBeagle-7B-v0",
    role="weight 0.36, density 0.65",
    repo_id="mlabonne/OmniTruthyBeagle-7B-v0",
    sha="b1c8a7a9fa1d1c5e0a1a6e2b6f0c7d1f0d3c9f11",
    license="cc-by-nc-4.0",
)
NEU = ParentFacts(
    label="mlabonne/NeuBeagle-7B",
    role="weight 0.34, density 0.6",
    repo_id="mlabonne/NeuBeagle-7B",
    sha="0d1f3c2b6f0c7d1f0d3c9f11b1c8a7a9fa1d1c5e",
    license="apache-2.0",
)

LICENCE = LicenceDecision(
    license="cc-by-nc-4.0",
    outcome=Outcome.DERIVED,
    reasons=(
        "mistralai/Mistral-7B-v0.1 and mlabonne/NeuBeagle-7B declare apache-2.0.",
        "mlabonne/OmniTruthyBeagle-7B-v0 declares cc-by-nc-4.0.",
        "cc-by-nc-4.0 asks the most, and the others allow works under it.",
    ),
    notices=("cc-by-nc-4.0 asks for credit to the authors of mlabonne/OmniTruthyBeagle-7B-v0.",),
)

MONARCH = MergeFacts(
    repo_id="mlabonne/Monarch-7B",
    title="Monarch-7B",
    method_title="DARE-TIES",
    method_paper="https://arxiv.org/abs/2311.03099",
    method_summary="Drops a random part of every task vector, rescales the rest and adds up what agrees in sign.",
    parents=(OMNI, NEU, BASE),
    recipe_text=RECIPE,
    normalised_recipe=RECIPE.replace("v0.1\n", "v0.1@27d67f1b5f57dc0953326b2601d68371d40ea8da\n"),
    command="hubmerge merge-and-push monarch.yml mlabonne/Monarch-7B",
    dtype="bfloat16",
    architecture="MistralForCausalLM",
    pipeline_tag="text-generation",
    parameter_count=7_241_732_096,
    context_length=32_768,
    tokenizer_from="mistralai/Mistral-7B-v0.1",
    chat_template=True,
    seed=42,
    version="0.1.0",
    fingerprint="sha256:3f0b6d8e",
    files=(
        FileFacts(path="config.json", size_bytes=612, sha256="a" * 64),
        FileFacts(path="model-00001-of-00002.safetensors", size_bytes=4_943_162_336, sha256="b" * 64),
        FileFacts(path="model-00002-of-00002.safetensors", size_bytes=4_540_303_032, sha256="c" * 64),
        FileFacts(path="hubmerge.lock.json", size_bytes=5_120),
    ),
    notes=("mlabonne/NeuBeagle-7B has no chat template.",),
    licence=LICENCE,
)
