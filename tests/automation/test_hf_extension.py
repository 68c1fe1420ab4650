"""The program within the `hf` command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hubmerge.cli import COMMANDS, main
from hubmerge.localhub import LocalHub
from tests.automation.runner import ROOT

HF = Path(sys.executable).with_name("hf")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def hf(*words: object) -> subprocess.CompletedProcess[str]:
    command = [HF, *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})


def test_hf_merge_is_this_program(hub: LocalHub, recipe: Path, home: Path) -> None:
    installed = run("install-hf-extension")
    manifest = home / ".local/share/hf/extensions/hf-merge/manifest.json"
    assert (installed.stdout, installed.stderr) == (f"{manifest}\n", "Run it with: hf merge plan recipe.yml\n")
    planned = hf("merge", "plan", recipe, "--format", "json")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert json.loads(planned.stdout)["method"] == "linear"
    wrong = hf("merge", "plan", home / "none.yml")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("Error: ")


def test_hf_lists_the_extension() -> None:
    assert run("install-hf-extension").exit_code == 0
    (listed,) = json.loads(hf("extensions", "list", "--json").stdout)
    assert (listed["command"], listed["source"]) == ("hf merge", "hubmerge/hf-merge")
    assert "Merge language models from Hub to Hub" in hf("--help").stdout


def test_an_installation_of_hf_is_not_replaced_unasked(home: Path) -> None:
    assert [run("install-hf-extension").exit_code for _ in range(2)] == [0, 0]
    manifest = home / ".local/share/hf/extensions/hf-merge/manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "commit_sha": "1" * 40}))
    refused = run("install-hf-extension")
    sentence = f"Error: `hf merge` is installed already, in {manifest.parent}\n"
    assert (refused.exit_code, refused.stderr) == (1, f"{sentence}Hint: Replace it with --force, or keep it.\n")
    assert json.loads(run("install-hf-extension", "--force", "--json").stdout)["manifest"] == str(manifest)
    assert json.loads(manifest.read_text())["commit_sha"] is None


def test_hf_can_install_the_repository_itself() -> None:
    """`hf extensions install` needs the program `hf-merge`, and no file of that name: it would run that instead."""
    assert 'hf-merge = "hubmerge.cli:main"' in (ROOT / "pyproject.toml").read_text()
    assert not (ROOT / "hf-merge").exists()


@pytest.mark.parametrize("words", [("--format", "json"), ("--json",)])
def test_every_command_with_json_has_a_format(words: tuple[str, ...], home: Path) -> None:
    assert json.loads(run("init", str(home / "merges"), *words).stdout)["target"] == "me/merged-7b"
    with_json = [command for command in COMMANDS if any("--json" in each.opts for each in command.params)]
    assert all(any("--format" in each.opts for each in command.params) for command in with_json)


def test_the_quiet_format_is_the_bare_result(home: Path) -> None:
    result = run("init", str(home / "merges"), "--format", "quiet")
    assert (len(result.stdout.splitlines()), result.stderr) == (4, "")


def test_the_shell_completes_commands() -> None:
    variables = os.environ | {"_HF_MERGE_COMPLETE": "bash_complete", "COMP_WORDS": "hf-merge pl", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("hf-merge")
    done = subprocess.run([program], capture_output=True, text=True, check=False, env=variables)
    assert done.stdout == "plain,plan\n"
