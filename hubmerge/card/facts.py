"""What a model card says about a merge, as plain data: gathered by the pipeline, read by the templates."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """What may happen to a merge under the licences of its parents."""

    DERIVED = "follows from the parents' licences"
    CONSENT = "a person must choose a licence and say why"
    FORBIDDEN = "the parents' licences do not allow it"
    OVERRIDDEN = "chosen by a person, who said why"


@dataclass(frozen=True, kw_only=True)
class ParentLicence:
    """What one ancestor of a merge declares about its licence, in its own spelling.

    Attributes:
        label: The model's name in sentences.
        license: As its card has it; several apply together if commas separate them. None if it declares none.
        name: `license_name`, what an `other` licence is called.
        link: Absolute URL of the licence's text.
        page: Where the Hub shows the model at the commit that was read.
        unseen: Why its card could not be read, as a phrase: "deleted or private"; None where it was read.
    """

    label: str
    license: str | None
    name: str | None = None
    link: str | None = None
    page: str | None = None
    unseen: str | None = None


@dataclass(frozen=True, kw_only=True)
class LicenceTerms:
    """One licence and everybody who declares it.

    Attributes:
        title: The Hub's id, or what the cards call it.
        link: URL of its text, where that is known.
        models: Each model's name and the page that shows it.
    """

    title: str
    link: str | None
    models: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, kw_only=True)
class LicenceDecision:
    """The licence of a merge, and how it was found.

    Attributes:
        license: The Hub's licence id; None if none could be derived.
        name: `license_name`, only with the id `other`.
        link: `license_link`, only with the id `other`.
        reasons: Whole sentences, first to last.
        notices: Duties that come with the licence, whole sentences.
        warnings: What the publisher should put right or know, whole sentences.
        terms: Every licence that was found.
        override_reason: What the person said who chose the licence; None unless OVERRIDDEN.
    """

    license: str | None
    name: str | None = None
    link: str | None = None
    outcome: Outcome
    reasons: tuple[str, ...]
    notices: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    terms: tuple[LicenceTerms, ...] = ()
    override_reason: str | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the merge may be published under it without another word of a person."""
        return self.outcome in (Outcome.DERIVED, Outcome.OVERRIDDEN)


@dataclass(frozen=True, kw_only=True)
class ParentFacts:
    """One model that the merge was made from.

    Attributes:
        label: The model as the recipe writes it.
        role: What it is to the merge, as a phrase: "base model", "weight 0.36, density 0.65", "layers 0-24".
        repo_id: None for a local folder.
        sha: The commit that was read, 40 hexadecimal digits; None for a local folder.
        license: As its card has it; several are separated by commas.
        license_link: As its card has it: a URL, or a file of its repo.
        tags: Its card's tags, unfiltered; so are languages and datasets.
        missing: Why nothing of it can be read any more, as a sentence without a full stop; None if it was read.
    """

    label: str
    role: str
    repo_id: str | None = None
    sha: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    gated: bool = False
    tags: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    is_base: bool = False
    missing: str | None = None


@dataclass(frozen=True, kw_only=True)
class DiagnosticsFacts:
    """What the statistics of a merge's weights say.

    Attributes:
        sentences: Their meaning, the most important first.
        warnings: What is wrong with the values, whole sentences.
        has_picture: Whether there is a heat map, diagnostics.png, beside diagnostics.json with the numbers.
        basis: What the numbers were taken from, one sentence.
    """

    sentences: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    has_picture: bool
    basis: str


@dataclass(frozen=True, kw_only=True)
class AncestryFacts:
    """What lies behind the parents.

    Attributes:
        chart: The whole ancestry, or the nearest part of it, as a Mermaid flowchart.
        summary: Its size, as a sentence without a full stop.
        warnings: What is wrong in it, whole sentences.
    """

    chart: str
    summary: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """One file of the merge; `sha256` is 64 hexadecimal digits, or None where nobody computed it."""

    path: str
    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ParentChange:
    """What became of one parent since an earlier merge.

    Attributes:
        old_sha: Its commit then, 40 hexadecimal digits; None if it was no parent.
        new_sha: Its commit now; None if it is no parent any more.
        kinds: What is different, as phrases: "weights", "documentation".
    """

    repo_id: str
    old_sha: str | None
    new_sha: str | None
    kinds: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ChangeFacts:
    """What changed since the merge that this one takes the place of.

    Attributes:
        previous_sha: The commit of that merge, 40 hexadecimal digits.
        is_recipe_changed: Whether somebody edited the recipe.
        parents: Those of which something is different.
    """

    previous_sha: str
    is_recipe_changed: bool
    parents: tuple[ParentChange, ...]


@dataclass(frozen=True, kw_only=True)
class PreferenceData:
    """A data set of preferences.

    Attributes:
        name: Its Hub id, or the name of a file.
        sha: The commit; of a file the SHA-256 of its content.
        licence: As its card has it; None if it declares none.
        notes: What a reader of the result should know of it, one sentence each.
    """

    name: str
    is_local: bool
    sha: str
    split: str
    licence: str | None
    pairs: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that was measured on the held-out pairs.

    Attributes:
        id: Its name for programs.
        title: Its name for people.
        policy: Of the model as it was trained, as text; empty where it has none.
        result: Of the model that is published.
    """

    id: str
    title: str
    policy: str
    result: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One number of lm-evaluation-harness for the model before and after, as text."""

    task: str
    metric: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class TuningFacts:
    """What a card says of the preference tuning that followed the merge.

    Attributes:
        base_models: Hub ids of what was tuned.
        is_merge: Whether that was made by a recipe.
        is_adapter: Whether the adapter alone is published.
        data: The data sets.
        held_out: Number of pairs kept for measuring.
        settings: (name, value) of everything that was chosen.
        work: Steps, time and hardware, as a sentence.
        curves: Path of the picture of the training; None if there is none.
        metrics: Measured on the held-out pairs.
        survival: What is left of the change in the stored weights, as sentences.
        benchmarks: That somebody asked for.
        adapter_sha256: Of the adapter's weights.
        adapter_path: Where they lie in the repo; None if they are not published.
        warnings: What was noticed, whole sentences.
    """

    base_models: tuple[str, ...]
    is_merge: bool
    is_adapter: bool = False
    data: tuple[PreferenceData, ...]
    held_out: int
    settings: tuple[tuple[str, str], ...]
    work: str
    curves: str | None
    metrics: tuple[Metric, ...]
    survival: tuple[str, ...]
    adapter_sha256: str
    adapter_path: str | None
    benchmarks: tuple[Benchmark, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MergeFacts:
    """Everything that the card of a merge says.

    Attributes:
        repo_id: Where it is published; None for a folder.
        title: The card's heading.
        method_title: The method's name in prose.
        method_paper: URL of its paper or source; None for folklore.
        method_summary: One sentence: what the method does.
        parents: In the order of the recipe, the base model included.
        tags: Besides those that every merge has.
        recipe_text: The recipe, verbatim.
        normalised_recipe: The recipe with every default written out and every parent at its commit; None where only
            the names in the recipe are understood.
        command: The command line that makes this merge again, from mergekit_config.yml beside it; None where there is
            none.
        dtype: Of the weights, by its name in torch without the prefix: "bfloat16".
        architecture: First of `architectures` in config.json.
        pipeline_tag: The Hub's task id.
        parameter_count: None where the weights' headers cannot be read.
        context_length: In tokens.
        tokenizer_from: Where the tokenizer comes from, as a phrase: "a/b", "the union of all parents' vocabularies";
            None if the merge has none.
        chat_template: Whether the published tokenizer has one.
        template_from: Where the template comes from, as a phrase: "chatml", "that of a/b, the most common among the
            parents"; None where it is the tokenizer's.
        version: hubmerge's.
        torch_version: Of the torch that computed the weights; None where it is not known.
        fingerprint: Of the plan; None where no plan was made.
        files: In the order in which they are listed.
        notes: Warnings of the plan, whole sentences.
        ancestry: None where nothing is known beyond the parents.
        changes: None where no earlier merge was republished.
        tuning: None where weights are only merged.
        made_elsewhere: Whether another tool made it, so that the parents' commits are those of today, not those that
            were merged.
        diagnostics: None where nothing has been measured.
    """

    repo_id: str | None
    title: str
    method_title: str
    method_paper: str | None = None
    method_summary: str
    parents: tuple[ParentFacts, ...]
    tags: tuple[str, ...] = ()
    recipe_text: str
    normalised_recipe: str | None
    command: str | None
    dtype: str
    architecture: str | None = None
    pipeline_tag: str | None = None
    parameter_count: int | None
    context_length: int | None = None
    tokenizer_from: str | None
    chat_template: bool = False
    template_from: str | None = None
    seed: int | None = None
    version: str
    torch_version: str | None = None
    fingerprint: str | None = None
    files: tuple[FileFacts, ...] = ()
    notes: tuple[str, ...] = ()
    ancestry: AncestryFacts | None = None
    changes: ChangeFacts | None = None
    made_elsewhere: bool = False
    diagnostics: DiagnosticsFacts | None = None
    tuning: TuningFacts | None = None
    licence: LicenceDecision
