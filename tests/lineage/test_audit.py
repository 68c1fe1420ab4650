"""What an audit finds, in AlphaMonarch's ancestry and in small ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hubmerge.card.facts import Outcome
from hubmerge.lineage.audit import Fault, Finding, Severity, audit
from hubmerge.lineage.graph import Lineage, Relation, State
from tests.lineage.graphs import edge, graph, node

UNSEEN = (State.MISSING, State.UNREACHABLE, State.UNREAD)


def found(lineage: Lineage) -> list[tuple[Fault, str]]:
    return [(finding.fault, finding.sentence) for finding in audit(lineage).findings]


def test_the_ancestry_of_alphamonarch(alpha: Lineage) -> None:
    base = "leaves mistralai/Mistral-7B-v0.1, the base of the merge, out of base_model."
    assert found(alpha) == [
        (
            Fault.NO_DERIVATIVES,
            "fblgit/UNA-TheBeagle-7b-v1 is under cc-by-nc-nd-4.0, which allows no derivatives, "
            "and mlabonne/Beagle14-7B was made from it.",
        ),
        (
            Fault.MISSING,
            "mlabonne/NeuBeagle-7B has been deleted or is private, and mlabonne/Monarch-7B was made from it.",
        ),
        (
            Fault.LAXER_LICENCE,
            "mlabonne/OmniTruthyBeagle-7B-v0 declares cc-by-4.0, and mlabonne/OmniBeagle-7B, "
            "from which it descends, cc-by-nc-4.0, which asks for more.",
        ),
        (
            Fault.CONTAMINATED,
            "EmbeddedLLM/Mistral-7B-Merge-14-v0.1 speaks of contaminated data: "
            "“Note: one of the parents may have been trained on contaminated data.”",
        ),
        (Fault.BASE_LEFT_OUT, f"mlabonne/Monarch-7B {base}"),
        (Fault.BASE_LEFT_OUT, f"mlabonne/OmniBeagle-7B {base}"),
        (Fault.BASE_LEFT_OUT, f"EmbeddedLLM/Mistral-7B-Merge-14-v0 {base}"),
        (Fault.PARENTS_LEFT_OUT, "mlabonne/OmniTruthyBeagle-7B-v0 names none of its parents in base_model."),
        (
            Fault.UNREAD,
            "janai-hq/trinity-v1 is gated: its metadata was read, its card and its recipe were not.",
        ),
    ]


def test_its_licence_is_not_to_be_derived(alpha: Lineage) -> None:
    audited = audit(alpha)
    assert audited.needs_consent
    assert (audited.licence.license, audited.licence.outcome) == (None, Outcome.FORBIDDEN)


def test_nothing_is_wrong_in_a_clean_ancestry() -> None:
    audited = audit(graph("a < b c; b < d", node("c", "mit")))
    assert audited.findings == ()
    assert (audited.needs_consent, audited.licence.license) == (False, "apache-2.0")


def test_a_model_without_a_licence_needs_consent() -> None:
    lineage = graph("a < b", node("b", None))
    assert found(lineage) == [
        (Fault.UNLICENSED, "b declares no licence, so nobody can tell what its descendants may do.")
    ]
    assert audit(lineage).needs_consent


def test_a_laxer_licence_is_seen_past_a_parent_without_one() -> None:
    lineage = graph("a < b; b < c", node("b", "unknown"), node("c", "gemma"))
    assert found(lineage) == [
        (Fault.UNLICENSED, "b declares unknown, so nobody can tell what its descendants may do."),
        (Fault.LAXER_LICENCE, "a declares apache-2.0, and c, from which it descends, gemma, which asks for more."),
    ]


def test_licences_that_do_not_join_are_a_clash() -> None:
    lineage = graph("a < b", node("a", "gpl-3.0"), node("b", "cc-by-nc-4.0"))
    sentence = "a declares gpl-3.0, and b, from which it descends, cc-by-nc-4.0: the two do not join."
    assert found(lineage) == [(Fault.LICENCE_CLASH, sentence)]


@pytest.mark.parametrize(("child", "parent"), [("mit", "apache-2.0"), ("llama3", "llama3"), ("cc-by-nc-4.0", "mit")])
def test_licences_of_one_kind_or_stricter_ones_are_right(child: str, parent: str) -> None:
    assert found(graph("a < b", node("a", child), node("b", parent))) == []


@pytest.mark.parametrize(
    ("state", "finding"),
    [
        (State.LOCAL, (Fault.LOCAL, "b is a folder on somebody's machine, and a was made from it.")),
        (State.UNREAD, (Fault.UNREAD, "b was not read, nor what it was made from.")),
        (State.UNREACHABLE, (Fault.UNREAD, "b was not read, nor what it was made from.")),
    ],
)
def test_what_was_not_read_is_said(state: State, finding: tuple[Fault, str]) -> None:
    assert found(graph("a < b", node("b", None, state))) == [finding]


def test_a_quantised_parent_is_a_warning() -> None:
    lineage = graph("a < b; b < c", node("b", relation=Relation.QUANTIZED))
    assert found(lineage) == [
        (Fault.QUANTIZED, "b is a quantised copy with rounded weights, and a was made from it."),
    ]
    assert audit(lineage).findings[0].severity is Severity.WARNING


def test_a_declared_licence_does_not_undo_an_ancestors() -> None:
    lineage = graph("merge < tuned other; tuned < llama", node("llama", "llama3.1"))
    assert audit(lineage).licence.license == "llama3.1"


def test_licences_that_do_not_join_need_consent_though_no_card_is_wrong() -> None:
    lineage = graph("a < b c", node("a", None), node("b", "llama3.1"), node("c", "gemma"))
    audited = audit(lineage)
    assert (audited.findings, audited.needs_consent) == ((), True)


def test_what_was_not_read_is_named_and_nothing_is_derived() -> None:
    lineage = graph("a < b c d e", *(node(name, None, state) for name, state in zip("bcd", UNSEEN, strict=True)))
    licence = audit(lineage).licence
    assert licence.outcome is Outcome.CONSENT
    assert licence.reasons[:4] == (
        "Nothing is known of b: deleted or private.",
        "Nothing is known of c: the Hub did not answer.",
        "Nothing is known of d: not read, because the ancestry is too large or the time was up.",
        "e declares apache-2.0.",
    )


def test_a_gated_ancestor_is_named_and_its_licence_counts() -> None:
    licence = audit(graph("a < b", node("b", "gemma", State.GATED))).licence
    assert licence.license == "gemma"
    assert licence.reasons[-1] == "b is gated: the licence is known, but not all that lies behind."


def test_circles_are_told() -> None:
    lineage = graph("a < b; b < c; c < a c")
    assert [sentence for fault, sentence in found(lineage) if fault is Fault.CIRCLE] == [
        "c names a as its parent, of which it is an ancestor itself.",
        "c names itself as its parent.",
    ]


def test_a_renamed_parent_is_a_note() -> None:
    lineage = graph("x/a < x/b")
    renamed = replace(lineage, edges=(edge("x/a", "x/b", name="x/old@v1"),))
    assert audit(renamed).findings == (
        Finding(Fault.RENAMED, "x/b", "x/b is what x/a calls x/old@v1: it has been renamed."),
    )
    assert not audit(renamed).needs_consent


def test_a_broken_recipe_is_a_note() -> None:
    lineage = graph("a < b", node("b", relation=Relation.MERGE, problems=("mergekit_config.yml is not valid YAML",)))
    assert found(lineage) == [(Fault.UNREAD, "b: mergekit_config.yml is not valid YAML.")]
