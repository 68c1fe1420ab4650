"""The front matter of a merge; most tests are a fault that generators of today make."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard

from hubmerge.card.facts import LicenceDecision, MergeFacts, Outcome, ParentFacts
from hubmerge.card.metadata import card_metadata, merge_metadata
from hubmerge.card.render import render_card
from tests.card.facts import BASE, MONARCH, NEU, OMNI


def with_parents(*parents: ParentFacts) -> MergeFacts:
    return replace(MONARCH, parents=parents)


def local(label: str) -> ParentFacts:
    return ParentFacts(label=label, role="")


def test_the_front_matter_of_a_merge_in_its_order():
    assert list(card_metadata(MONARCH).items()) == [
        ("base_model", ["mlabonne/OmniTruthyBeagle-7B-v0", "mlabonne/NeuBeagle-7B", "mistralai/Mistral-7B-v0.1"]),
        ("base_model_relation", "merge"),
        ("library_name", "transformers"),
        ("pipeline_tag", "text-generation"),
        ("tags", ["merge", "mergekit", "hubmerge"]),
        ("language", ["en"]),
        ("license", "cc-by-nc-4.0"),
    ]


def test_the_merge_base_is_a_base_model():
    assert BASE.repo_id in card_metadata(MONARCH)["base_model"]


def test_parents_are_in_the_order_of_the_recipe_without_duplicates():
    assert card_metadata(with_parents(NEU, BASE, NEU, OMNI, BASE))["base_model"] == [
        NEU.repo_id,
        BASE.repo_id,
        OMNI.repo_id,
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/root/.cache/huggingface/hub/models--a--b/snapshots/0123abc",
        "./models/mine",
        "../mine",
        "~/mine",
        r"C:\models\mine",
        "C:/models/mine",
        "models--a--b",
        "a/b/c",
        "a/b@main",
        "a b",
        "",
    ],
)
def test_a_path_is_never_a_base_model(path: str):
    assert "base_model" not in card_metadata(with_parents(local(path)))
    assert "base_model" not in card_metadata(with_parents(replace(OMNI, repo_id=path)))


def test_local_parents_leave_the_others_and_no_empty_list():
    assert card_metadata(with_parents(OMNI, local("/models/mine")))["base_model"] == [OMNI.repo_id]
    assert "base_model: []" not in render_card(with_parents(local("/models/mine")))


def test_one_listed_parent_is_still_a_merge():
    assert card_metadata(with_parents(OMNI))["base_model_relation"] == "merge"


def test_the_licence_key_is_license_and_its_value_is_derived():
    card = render_card(MONARCH)
    assert "\nlicense: cc-by-nc-4.0\n" in card
    assert "\nlicence: " not in card


def test_no_licence_is_no_key():
    undecided = LicenceDecision(license=None, outcome=Outcome.CONSENT, reasons=())
    assert "license" not in card_metadata(replace(MONARCH, licence=undecided))


def test_an_other_licence_has_its_name_and_link():
    other = LicenceDecision(
        license="other", name="qwen", link="https://example.org/L", outcome=Outcome.DERIVED, reasons=()
    )
    metadata = card_metadata(replace(MONARCH, licence=other))
    assert (metadata["license"], metadata["license_name"], metadata["license_link"]) == (
        "other",
        "qwen",
        "https://example.org/L",
    )


def test_the_data_sets_are_real_ids_under_the_plural_key():
    trained = replace(
        OMNI, datasets=("argilla/dpo", "squad", "generator", "json", "/data/mine", "./x", "https://a.b/c")
    )
    metadata = card_metadata(with_parents(trained, trained))
    assert metadata["datasets"] == ["argilla/dpo", "squad"]
    assert "dataset" not in metadata


def test_an_audience_warning_is_carried_over_and_no_other_tag_is():
    parent = replace(OMNI, tags=("not-for-all-audiences", "gguf", "merge"))
    assert card_metadata(with_parents(parent))["tags"] == ["merge", "mergekit", "hubmerge", "not-for-all-audiences"]


def test_languages_are_codes_and_norwegian_is_one():
    parent = replace(OMNI, languages=("no", "en", "English", "pt-BR", "code"))
    assert card_metadata(with_parents(parent))["language"] == ["no", "en", "code"]
    assert yaml.safe_load(render_card(with_parents(parent)).split("---")[1])["language"] == ["no", "en", "code"]


def test_the_hub_client_reads_the_card_without_extra_keys():
    data = ModelCard(render_card(MONARCH)).data.to_dict()
    assert data == card_metadata(MONARCH)
    assert "model_name" not in data


def test_metadata_of_other_hands_stays_and_comes_last():
    previous = {"license": "mit", "thumbnail": "x.png", "tags": ["merge", "mistral"], "language": "fr"}
    merged = merge_metadata(card_metadata(MONARCH), previous)
    assert merged["license"] == "cc-by-nc-4.0"
    assert merged["tags"] == ["merge", "mergekit", "hubmerge", "mistral"]
    assert merged["language"] == ["en", "fr"]
    assert list(merged)[-1] == "thumbnail"


def test_keys_that_other_tools_misspell_are_mended():
    previous = {"licence": "license", "dataset": "argilla/dpo", "datasets": ["/data/mine", "json", "squad"]}
    merged = merge_metadata(card_metadata(MONARCH), previous)
    assert merged["datasets"] == ["squad", "argilla/dpo"]
    assert not {"licence", "dataset"} & set(merged)


def test_a_key_that_is_mended_to_nothing_is_no_key():
    assert "datasets" not in merge_metadata(card_metadata(MONARCH), {"dataset": "generator"})


def test_evaluation_results_of_an_earlier_card_stay_whole_even_without_a_models_name():
    results = [{"results": [{"task": {"type": "text-generation"}, "metrics": [{"type": "acc", "value": 0.5}]}]}]
    previous = f"---\n{yaml.safe_dump({'model-index': results})}---\n# Mine\n"
    card = render_card(MONARCH, previous=previous)
    assert yaml.safe_load(card.split("---")[1])["model-index"] == results


@pytest.mark.parametrize(
    "previous", ["\ufeff---\r\nlanguage: no\r\n---\r\n# Mine\r\n", "---\nlanguage: no\n---\n# Mine\n"]
)
def test_an_earlier_card_may_have_a_byte_order_mark_and_other_line_ends(previous: str):
    card = render_card(MONARCH, previous=previous)
    assert yaml.safe_load(card.split("---")[1])["language"] == ["en", "no"]
    assert card.endswith("\n# Mine\n")
    assert "\r" not in card


def test_the_relation_is_there_though_the_clients_card_data_has_no_such_field():
    assert ModelCard(render_card(MONARCH)).data.get("base_model_relation") == "merge"


def test_the_card_has_what_merge_cards_lack():
    card = render_card(MONARCH)
    wanted = ("base_model:", "base_model_relation: merge", OMNI.sha or "", "Random seed 42", "a" * 64, "hubmerge 0.1.0")
    assert [text for text in wanted if text not in card] == []


def test_no_licence_is_made_up():
    undecided = LicenceDecision(license=None, outcome=Outcome.CONSENT, reasons=())
    front = render_card(replace(MONARCH, licence=undecided)).split("---")[1]
    assert "apache-2.0" not in front
    assert "license" not in front


def test_what_only_a_merge_tool_knows_does_not_outlive_its_merge():
    previous = {"base_model": ["gone/parent"], "license": "other", "license_name": "qwen", "license_link": "LICENSE"}
    merged = merge_metadata(card_metadata(with_parents(local("/mine"))), previous)
    assert "base_model" not in merged
    assert "license_name" not in merged
    assert "license_link" not in merged
