from __future__ import annotations

from itertools import combinations, combinations_with_replacement, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubmerge.card.facts import LicenceDecision, Outcome, ParentLicence
from hubmerge.card.licence import join_licences, override_licence
from hubmerge.card.licence_ids import IDS, Family, family_of, normalise

# A row names one parent's licence and a column, in the order of the rows, the other's: "=" is the row's own licence,
# NO is forbidden, "?" needs a person.
PAIRS = """
mit             =
apache-2.0      =  =
cc-by-4.0       =  =  =
cc-by-nc-4.0    =  =  =  =
cc-by-sa-4.0    =  =  =  NO =
cc-by-nc-sa-4.0 =  =  =  =  NO =
gpl-3.0         =  =  =  NO ?  NO =
llama3.1        =  =  =  ?  NO NO NO =
gemma           =  =  =  ?  NO NO NO ?  =
mpl-2.0         ?  ?  ?  ?  NO NO ?  ?  ?  =
cc-by-nd-4.0    NO NO NO NO NO NO NO NO NO NO NO
unknown         ?  ?  ?  ?  ?  ?  ?  ?  ?  ?  NO ?
"""
NAMES = [row.split()[0] for row in PAIRS.strip().splitlines()]
CELLS = [
    (row.split()[0], NAMES[column], row.split()[0] if cell == "=" else cell)
    for row in PAIRS.strip().splitlines()
    for column, cell in enumerate(row.split()[1:])
]


def parents(*licences: str | None) -> list[ParentLicence]:
    return [ParentLicence(label=f"org/m{index}", license=licence) for index, licence in enumerate(licences)]


def shown(decision: LicenceDecision) -> str:
    return {Outcome.FORBIDDEN: "NO", Outcome.CONSENT: "?"}.get(decision.outcome) or str(decision.license)


@pytest.mark.parametrize(("first", "second", "expected"), CELLS)
def test_every_pair_of_licences(first: str, second: str, expected: str):
    assert shown(join_licences(parents(first, second))) == expected
    assert shown(join_licences(parents(second, first))) == expected


@pytest.mark.parametrize("licence", [licence for licences in IDS.values() for licence in licences])
def test_parents_of_one_licence_keep_it_unless_it_allows_no_derivatives(licence: str):
    assert shown(join_licences(parents(licence, licence))) == ("NO" if "-nd-" in licence else licence)


@pytest.mark.parametrize("other", NAMES)
@pytest.mark.parametrize("licence", ["cc-by-nd-4.0", "cc-by-nc-nd-4.0"])
def test_no_derivatives_forbids_a_merge_with_anything(licence: str, other: str):
    decision = join_licences(parents(other, licence))
    assert decision.outcome is Outcome.FORBIDDEN
    assert decision.license is None
    assert f"{licence} allows no derivatives, and a merge is a derivative." in decision.reasons


@pytest.mark.parametrize("declared", [None, "", "unknown", "other", "cc", "license", "proprietary-v7"])
def test_an_unknown_licence_is_never_guessed(declared: str | None):
    decision = join_licences(parents("apache-2.0", declared))
    assert (decision.outcome, decision.license) == (Outcome.CONSENT, None)


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        (None, "org/m0 declares no licence."),
        ("other", 'org/m0 declares "other" without a name.'),
        ("license", 'org/m0 declares "license", which is no licence id of the Hub.'),
    ],
)
def test_the_reasons_say_what_is_unknown(declared: str | None, sentence: str):
    assert join_licences(parents(declared)).reasons == (
        sentence,
        "Without a known licence of org/m0 none can be derived for the merge.",
    )


ALL = [licence for licences in IDS.values() for licence in licences]
SAMPLE = [*NAMES, "cc-by-3.0", "cc-by-sa-3.0", "cc-by-nc-sa-3.0", "agpl-3.0", "gpl", "lgpl-3.0", "llama2", "epl-2.0"]
STRICTNESS = [Outcome.DERIVED, Outcome.CONSENT, Outcome.FORBIDDEN]


def test_the_table_has_every_family():
    assert {family_of(name) for name in NAMES} == set(Family)
    assert len(CELLS) == len(NAMES) * (len(NAMES) + 1) // 2


def test_order_never_matters():
    for pair in combinations(ALL, 2):
        assert shown(join_licences(parents(*pair))) == shown(join_licences(parents(*reversed(pair))))
    for trio in permutations(NAMES, 3):
        assert shown(join_licences(parents(*trio))) == shown(join_licences(parents(*sorted(trio))))


def test_grouping_never_matters():
    for first, second in combinations_with_replacement(SAMPLE, 2):
        inner = join_licences(parents(first, second))
        for third in SAMPLE if inner.outcome is Outcome.DERIVED else ():
            whole = join_licences(parents(first, second, third))
            assert shown(join_licences(parents(inner.license, third))) == shown(whole)


def test_what_does_not_join_does_not_join_with_more():
    for trio in combinations(NAMES, 3):
        whole, inner = join_licences(parents(*trio)), join_licences(parents(*trio[:2]))
        assert STRICTNESS.index(whole.outcome) >= STRICTNESS.index(inner.outcome)


@given(st.lists(st.sampled_from([*ALL, "unknown", "acme"]), min_size=1, max_size=6))
def test_repetition_never_matters_and_more_is_never_laxer(licences: list[str]):
    decision, repeated = join_licences(parents(*licences)), join_licences(parents(*licences, *licences))
    assert (repeated.outcome, repeated.license, repeated.name) == (decision.outcome, decision.license, decision.name)
    fewer = join_licences(parents(*licences[:-1] or licences))
    assert STRICTNESS.index(decision.outcome) >= STRICTNESS.index(fewer.outcome)


def test_what_was_not_seen_is_named_and_never_guessed():
    gone = ParentLicence(label="org/gone", license=None, unseen="deleted or private")
    decision = join_licences([*parents("mit"), gone])
    assert (decision.outcome, decision.reasons) == (
        Outcome.CONSENT,
        (
            "org/m0 declares mit.",
            "Nothing is known of org/gone: deleted or private.",
            "Without a known licence of org/gone none can be derived for the merge.",
        ),
    )


def test_many_names_are_abridged_in_sentences_and_whole_in_the_terms():
    decision = join_licences(parents(*["mit"] * 12))
    listed = ", ".join(f"org/m{number}" for number in range(7))
    assert decision.reasons[0] == f"{listed} and 5 others declare mit."
    assert [len(terms.models) for terms in decision.terms] == [12]


def test_reasons_name_every_parent_once():
    decision = join_licences(parents("apache-2.0", "cc-by-nc-4.0", "Apache 2.0"))
    assert decision.reasons == (
        "org/m0 and org/m2 declare apache-2.0.",
        "org/m1 declares cc-by-nc-4.0.",
        "cc-by-nc-4.0 asks the most, and the others allow works under it.",
    )


def test_reasons_say_why_two_licences_do_not_join():
    decision = join_licences(parents("cc-by-nc-4.0", "cc-by-sa-4.0"))
    assert decision.reasons[-1] == (
        "cc-by-nc-4.0 and cc-by-sa-4.0 do not join: "
        "the one allows commercial use of the whole work, and the other forbids it."
    )


def test_several_licences_of_one_parent_all_apply():
    assert join_licences(parents("mit, cc-by-nc-4.0")).license == "cc-by-nc-4.0"


def test_copyleft_goes_up_its_own_chain():
    assert join_licences(parents("lgpl-3.0", "gpl-3.0", "mit")).license == "gpl-3.0"
    assert join_licences(parents("gpl", "agpl-3.0")).license == "agpl-3.0"


def test_share_alike_and_the_gpl_wait_for_a_person():
    decision = join_licences(parents("cc-by-sa-4.0", "gpl-3.0"))
    assert (decision.outcome, decision.reasons[-1]) == (
        Outcome.CONSENT,
        "cc-by-sa-4.0 and gpl-3.0 do not join: "
        "only cc-by-sa-4.0 may be put under a GPL, and only under gpl-3.0, so that a person has to look.",
    )


def test_older_creative_commons_licences_become_the_latest_when_joined():
    assert join_licences(parents("cc-by-nc-sa-3.0", "cc-by-nc-2.0")).license == "cc-by-nc-sa-4.0"


def test_a_named_other_licence_is_kept_with_its_link():
    qwen = ParentLicence(label="Qwen/Qwen-7B", license="other", name="tongyi-qianwen", link="https://example.org/L")
    decision = join_licences([qwen, *parents("apache-2.0")])
    assert decision.outcome is Outcome.DERIVED
    assert (decision.license, decision.name, decision.link) == ("other", "tongyi-qianwen", "https://example.org/L")


def test_an_other_licence_that_the_hub_knows_by_its_name_gets_its_id():
    llama = ParentLicence(label="meta-llama/Meta-Llama-3-8B", license="other", name="llama3", link="LICENSE")
    decision = join_licences([llama, *parents("llama3")])
    assert (decision.license, decision.name, decision.link) == ("llama3", None, None)


def test_unlike_use_restrictions_get_a_composite_name_and_wait_for_consent():
    decision = join_licences(parents("llama3.1", "apache-2.0", "gemma"))
    assert (decision.outcome, decision.license, decision.name) == (Outcome.CONSENT, "other", "llama3.1-and-gemma")


def test_the_composite_name_has_all_that_clash():
    assert join_licences(parents("mit", "mpl-2.0")).name == "mit-and-mpl-2.0"


def test_a_forbidden_pair_outweighs_what_a_person_could_consent_to():
    assert join_licences(parents("llama3", "gemma", "cc-by-nc-nd-4.0")).outcome is Outcome.FORBIDDEN


def test_llama_3_notices_and_name():
    notice = (
        "Llama 3.1 is licensed under the Llama 3.1 Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved."
    )
    named = join_licences(parents("llama3.1"), repo_id="me/Llama-3.1-Monarch")
    unnamed = join_licences(parents("llama3.1"), repo_id="me/Monarch")
    assert (named.notices, named.warnings) == ((notice, "Built with Llama."), ())
    assert unnamed.warnings == ('The Llama 3.1 licence asks that the name of the model begin with "Llama".',)


def test_llama_2_beside_other_weights_is_warned_of():
    warning = (
        "The Llama 2 licence forbids to improve other large language models with it; not all models here are under it."
    )
    assert join_licences(parents("llama2", "apache-2.0")).warnings == (warning,)
    assert join_licences(parents("llama2", "llama2")).warnings == ()


def test_credit_and_terms_are_passed_on():
    assert join_licences(parents("cc-by-4.0", "mit")).notices == (
        "cc-by-4.0 asks for credit to the authors of org/m0.",
    )
    assert "ai.google.dev/gemma/terms" in join_licences(parents("gemma")).notices[0]
    assert join_licences(parents("bigcode-openrail-m")).notices == (
        "The use restrictions of bigcode-openrail-m bind every user of this model.",
    )


def test_an_override_keeps_what_was_found_and_says_why():
    derived = join_licences(parents(None))
    chosen = override_licence(derived, license="Apache 2.0", reason=" the author agreed by mail ")
    assert (chosen.license, chosen.outcome) == ("apache-2.0", Outcome.OVERRIDDEN)
    assert chosen.override_reason == "the author agreed by mail"
    assert chosen.reasons == derived.reasons


def test_an_override_by_other_takes_the_composite_name():
    chosen = override_licence(join_licences(parents("llama3", "gemma")), license="other", reason="both hold")
    assert (chosen.license, chosen.name) == ("other", "llama3-and-gemma")


def test_an_override_by_a_name_that_the_hub_lacks_becomes_other():
    chosen = override_licence(join_licences(parents(None)), license="acme-1.0", reason="ours", link="LICENSE.md")
    assert (chosen.license, chosen.name, chosen.link) == ("other", "acme-1.0", "LICENSE.md")


@pytest.mark.parametrize(
    ("spelling", "licence"),
    [
        ("apache-2.0", "apache-2.0"),
        ("Apache 2.0", "apache-2.0"),
        ("apache2", "apache-2.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("apache-license-2.0", "apache-2.0"),
        ("MIT License", "mit"),
        ("BSD-3-Clause", "bsd-3-clause"),
        ("llama-2", "llama2"),
        ("Llama 3.1", "llama3.1"),
        ("llama3_1", "llama3.1"),
        ("llama-3-2", "llama3.2"),
        ("Llama 3.3 Community License Agreement", "llama3.3"),
        ("Meta Llama 3 Community License", "llama3"),
        ("Gemma Terms of Use", "gemma"),
        ("CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("CC-BY-NC-ND-4.0", "cc-by-nc-nd-4.0"),
        ("GPLv3", "gpl-3.0"),
        ("AGPL-3", "agpl-3.0"),
        ("openrail++", "openrail++"),
        ("cc0", "cc0-1.0"),
        ("other", None),
        ("unknown", None),
        ("license", None),
        ("apache", None),
        ("", None),
    ],
)
def test_spellings(spelling: str, licence: str | None):
    assert normalise(spelling) == licence


def test_every_id_is_its_own_spelling():
    for family, licences in IDS.items():
        assert [(normalise(licence), family_of(licence)) for licence in licences] == [
            (licence, family) for licence in licences
        ]
