"""Under which licence a merge goes out, or why it does not: from recipes on this machine, before any Hub is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hubmerge.errors import LicenceError
from hubmerge.merge.licensing import DIRECT_PARENTS_ONLY, LicenceChoice
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_and_push, merge_to_folder, open_merge, planned_licence
from tests.checkpoints import write_tensors
from tests.merge.merging import Heard, metadata_of
from tests.merge.recipes import whole


def model(folder: Path, license: str | None, **metadata: object) -> Path:
    write_tensors(folder, {"weight": torch.ones(2)})
    front = metadata | ({"license": license} if license else {})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(front)}---\n")
    return folder


def merge_of(folder: Path, *licences: str | None) -> dict[str, Any]:
    models = [model(folder / f"m{number}", licence) for number, licence in enumerate(licences)]
    return whole("linear", *[(each, {"weight": 1}) for each in models])


CONSENT = """\
no licence can be derived for this merge:
  - m0 declares llama3.1.
  - m1 declares gemma.
  - llama3.1 and gemma do not join: both sets of terms apply together, and no one licence states them."""
UNKNOWN = """\
no licence can be derived for this merge:
  - m0 declares mit.
  - m1 declares no licence.
  - Without a known licence of m1 none can be derived for the merge."""
FORBIDDEN = """\
the licences behind this merge do not allow to publish it:
  - m0 declares gpl-3.0.
  - m1 declares cc-by-nc-4.0.
  - gpl-3.0 and cc-by-nc-4.0 do not join: \
the one allows commercial use of the whole work, and the other forbids it."""
HINT = (
    "If you may publish it, choose its licence and say why; both stand in the card. Run the same command with "
    '--license {} --license-reason "..."'
)


@pytest.mark.parametrize(
    ("licences", "message", "suggested"),
    [
        (("llama3.1", "gemma"), CONSENT, "other"),
        (("mit", None), UNKNOWN, "ID"),
        (("gpl-3.0", "cc-by-nc-4.0"), FORBIDDEN, "ID"),
    ],
    ids=["unlike", "unknown", "forbidden"],
)
def test_what_a_person_must_decide_stops_a_push_before_the_hub_is_asked(
    tmp_path: Path, licences: tuple[str | None, ...], message: str, suggested: str
) -> None:
    with pytest.raises(LicenceError) as caught:
        merge_and_push(merge_of(tmp_path, *licences), "somebody/merged")
    assert (str(caught.value), caught.value.hint) == (message, HINT.format(suggested))
    assert caught.value.exit_code == 3


def test_a_misspelt_licence_key_declares_nothing(tmp_path: Path) -> None:
    trained = model(tmp_path / "trained", None, licence="license")
    with open_merge(whole("linear", (trained, {"weight": 1}))) as merge:
        assert planned_licence(merge).reasons[0] == "trained declares no licence."


@pytest.mark.parametrize("licences", [("llama3.1", "gemma"), ("mit", None), ("gpl-3.0", "cc-by-nc-4.0")])
def test_a_folder_is_never_refused_but_told_of(tmp_path: Path, licences: tuple[str | None, ...]) -> None:
    heard = Heard()
    merge_to_folder(merge_of(tmp_path, *licences), tmp_path / "out", progress=heard)
    assert "license" not in metadata_of(tmp_path / "out")
    assert "No licence" in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "LICENSE.md").exists()
    headlines = ("! No licence can be derived for this merge: ", "! The licences behind this merge do not allow")
    assert [sentence.startswith(headlines) for sentence in heard.sentences] == [True]


def test_a_chosen_composite_is_quoted_beside_the_weights(tmp_path: Path) -> None:
    options = MergeOptions(licence=LicenceChoice("other", "Both terms are kept."))
    heard = Heard()
    merge_to_folder(merge_of(tmp_path, "llama3.1", "gemma"), tmp_path / "out", options=options, progress=heard)
    assert {key: value for key, value in metadata_of(tmp_path / "out").items() if key.startswith("license")} == {
        "license": "other",
        "license_name": "llama3.1-and-gemma",
        "license_link": "LICENSE.md",
    }
    text = (tmp_path / "out" / "LICENSE.md").read_text()
    for quoted in ("| llama3.1 |", "| gemma |", "Built with Llama.", "chose this licence: Both terms are kept."):
        assert quoted in text
    assert heard.sentences == []


def test_one_licence_needs_no_file_of_its_own(tmp_path: Path) -> None:
    merge_to_folder(merge_of(tmp_path, "mit", "apache-2.0"), tmp_path / "out")
    assert metadata_of(tmp_path / "out")["license"] == "apache-2.0"
    assert not (tmp_path / "out" / "LICENSE.md").exists()


def test_a_forbidden_merge_may_be_published_by_somebody_who_says_why(tmp_path: Path) -> None:
    options = MergeOptions(licence=LicenceChoice("cc-by-nc-4.0", "Both authors agreed in writing."))
    merge_to_folder(merge_of(tmp_path, "gpl-3.0", "cc-by-nc-4.0"), tmp_path / "out", options=options)
    card = (tmp_path / "out" / "README.md").read_text()
    assert metadata_of(tmp_path / "out")["license"] == "cc-by-nc-4.0"
    assert "- The publisher chose this licence: Both authors agreed in writing.\n" in card
    assert "gpl-3.0 and cc-by-nc-4.0 do not join" in card


@pytest.mark.parametrize(("is_read", "count"), [(True, 0), (False, 1)])
def test_a_licence_of_the_parents_alone_says_so(tmp_path: Path, is_read: bool, count: int) -> None:
    with open_merge(merge_of(tmp_path, "mit", "mit"), MergeOptions(lineage=is_read)) as merge:
        assert planned_licence(merge).reasons.count(DIRECT_PARENTS_ONLY) == count
