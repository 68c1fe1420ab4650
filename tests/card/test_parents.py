from __future__ import annotations

import pytest

from hubmerge.card.facts import ParentFacts
from hubmerge.card.parents import commit_url, parent_facts, parent_licence, parent_title

CARD = {
    "license": "other",
    "license_name": "tongyi-qianwen",
    "license_link": "LICENSE",
    "language": "no",
    "tags": ["merge", "not-for-all-audiences"],
    "datasets": "argilla/dpo",
}
SHA = "27d67f1b5f57dc0953326b2601d68371d40ea8da"


def test_a_card_says_what_it_declares():
    parent = parent_facts(CARD, label="q", role="base model", repo_id="Qwen/Q", sha=SHA, gated=True, is_base=True)
    assert parent == ParentFacts(
        label="q",
        role="base model",
        repo_id="Qwen/Q",
        sha=SHA,
        license="other",
        license_name="tongyi-qianwen",
        license_link="LICENSE",
        gated=True,
        tags=("merge", "not-for-all-audiences"),
        languages=("no",),
        datasets=("argilla/dpo",),
        is_base=True,
    )


def test_a_card_without_metadata_declares_nothing():
    assert parent_facts({}, label="a/b", role="") == ParentFacts(label="a/b", role="")


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"license": "mit"}, "mit"),
        ({"license": ["mit"]}, "mit"),
        ({"license": ["mit", "gemma"]}, "mit, gemma"),
        ({"license": None}, None),
        ({"license": []}, None),
        ({"license": {"a": "b"}}, None),
        ({"licence": "license"}, None),
    ],
)
def test_shapes_of_a_licence(metadata: dict[str, object], licence: str | None):
    assert parent_facts(metadata, label="a", role="").license == licence


def test_a_link_to_a_file_of_the_parent_leads_there_from_anywhere():
    parent = parent_facts(CARD, label="q", role="", repo_id="Qwen/Q", sha=SHA)
    assert parent_licence(parent).link == f"https://huggingface.co/Qwen/Q/blob/{SHA}/LICENSE"


def test_a_link_to_a_file_of_a_local_folder_leads_nowhere():
    assert parent_licence(parent_facts(CARD, label="./q", role="")).link is None


def test_a_web_link_stays():
    parent = ParentFacts(label="a", role="", repo_id="a/b", license_link="https://example.org/licence")
    assert parent_licence(parent).link == "https://example.org/licence"


@pytest.mark.parametrize("label", ["/home/alice/models/mine", "~/models/mine/", r"C:\models\mine", "mine"])
def test_a_local_parent_is_called_by_its_folder_alone(label: str):
    assert parent_title(ParentFacts(label=label, role="")) == "mine"


def test_a_parent_is_shown_at_its_commit():
    assert commit_url(ParentFacts(label="a/b", role="", repo_id="a/b", sha=SHA)) == (
        f"https://huggingface.co/a/b/tree/{SHA}"
    )
