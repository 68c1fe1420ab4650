"""`hubmerge lineage` as people call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hubmerge.cli import main
from hubmerge.merge.recipe import load_recipe


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["lineage", *arguments])


def test_the_tree_is_printed(published_monarch: str) -> None:
    result = run(published_monarch)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "mlabonne/AlphaMonarch-7B  fine-tune · dpo  cc-by-nc-4.0"
    assert result.stdout.splitlines()[-1] == "34 ancestors, 4 of them reached more than one way"


def test_depth_ends_the_tree(published_monarch: str) -> None:
    lines = run(published_monarch, "--depth", "1").stdout.splitlines()
    assert lines[2] == "    └── mlabonne/Monarch-7B  not followed"


def test_an_audit_that_needs_consent_exits_with_3(published_monarch: str) -> None:
    result = run(published_monarch, "--audit")
    assert result.exit_code == 3
    assert result.stdout.splitlines()[-1] == "Licence that follows from all ancestors: none; a person must decide."


def test_an_audit_as_json_says_where_each_finding_lies(published_monarch: str) -> None:
    result = run(published_monarch, "--audit", "--json")
    record = json.loads(result.stdout)
    assert (result.exit_code, record["needs_consent"], record["license_outcome"]) == (3, True, "forbidden")
    finding = next(each for each in record["findings"] if each["kind"] == "missing")
    assert finding == {
        "kind": "missing",
        "severity": "consent",
        "model": "mlabonne/NeuBeagle-7B",
        "path": [published_monarch, "mlabonne/NeuralMonarch-7B", "mlabonne/Monarch-7B", "mlabonne/NeuBeagle-7B"],
        "sentence": "mlabonne/NeuBeagle-7B has been deleted or is private, and mlabonne/Monarch-7B was made from it.",
    }
    assert {each["kind"] for each in record["findings"]} >= {"no derivatives", "laxer licence", "contaminated"}
    assert "Nothing is known of mlabonne/NeuBeagle-7B: deleted or private." in record["license_reasons"]


@pytest.mark.parametrize("form", ["--recipe", "--mermaid"])
def test_an_audit_has_two_forms(form: str) -> None:
    result = run("a/b", "--audit", form)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        "Error: --audit goes with --json or with nothing",
    )


def test_an_audit_without_a_finding_exits_with_0(published_monarch: str) -> None:
    result = run("mlabonne/BeagleSempra-7B", "--audit")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "Nothing is wrong that public pages could show.")


def test_json_mermaid_and_recipe_are_printed_whole(published_monarch: str) -> None:
    assert json.loads(run(published_monarch, "--json").stdout)["root"] == published_monarch
    assert run(published_monarch, "--mermaid").stdout.startswith("flowchart TD\n")
    assert load_recipe(run("mlabonne/BeagSake-7B", "--recipe").stdout).method == "slerp"


def test_a_drawing_and_a_form_go_together(published_monarch: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["lineage", published_monarch, "--svg", str(tmp_path / "x.svg"), "--json"])
    assert (result.exit_code, json.loads(result.stdout)["root"]) == (0, published_monarch)
    assert (tmp_path / "x.svg").read_text().startswith("<svg")


def test_a_drawing_needs_a_folder_before_anything_is_read(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["lineage", "a/b", "--svg", str(tmp_path / "absent" / "x.svg")])
    assert result.exit_code == 2
    assert f"Invalid value for '--svg': there is no folder {tmp_path / 'absent'}" in result.stderr


def test_one_form_is_printed(published_monarch: str) -> None:
    assert run(published_monarch, "--format", "json").stdout == run(published_monarch, "--json").stdout
    result = run("a/b", "--json", "--mermaid")
    complaint = "Error: --json, --mermaid and --recipe exclude one another"
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, complaint)


def test_an_svg_is_written(published_monarch: str, tmp_path: Path) -> None:
    result = run(published_monarch, "--svg", str(tmp_path / "tree.svg"))
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "tree.svg").read_text().startswith("<svg ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody/none"], "Error: there is no model nobody/none on the Hub, or it is private and no token was given"),
        (
            ["mlabonne/BeagleSempra-7B", "--recipe"],
            "Error: mlabonne/BeagleSempra-7B publishes no recipe (no known parents)",
        ),
    ],
)
def test_mistakes_are_one_sentence(published_monarch: str, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stderr.splitlines()[0]) == (1, message)
