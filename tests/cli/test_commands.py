from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from hubmerge.cli import main
from hubmerge.cli.display import size_text
from hubmerge.merge.stream import StreamOptions
from hubmerge.weights.header import build_header
from tests.checkpoints import write_llama, write_tensors


@pytest.fixture(scope="session")
def parents(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("parents")
    return write_llama(folder / "first", seed=1), write_llama(folder / "second", seed=2)


@pytest.fixture
def recipe(tmp_path: Path, parents: tuple[Path, Path]) -> Path:
    models = [{"model": str(parent), "parameters": {"weight": 0.5}} for parent in parents]
    return written(tmp_path / "recipe.yml", {"merge_method": "linear", "models": models})


def written(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def run(*arguments: object) -> Result:
    """Runs a command; whatever it raises but an exit is the test's failure."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    return result


def commands(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yields every command with the words that call it, groups included."""
    yield names, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), command


COMMANDS = dict(commands(main))


def test_plan_prints_the_plan_and_nothing_else(recipe: Path, parents: tuple[Path, Path]) -> None:
    result = run("plan", recipe)
    assert (result.exit_code, result.stderr) == (0, "")
    for expected in (parents[0].name, "linear", "weight 0.5", "model.safetensors", "licence: "):
        assert expected in result.stdout


def test_plan_as_json_is_json(recipe: Path) -> None:
    result = run("plan", recipe, "--json", "--shard-size", "5kB", "--seed", 3)
    summary = json.loads(result.stdout)
    assert (result.exit_code, result.stderr, summary["method"], summary["seed"]) == (0, "", "linear", 3)
    assert len(summary["shards"]) == 3


def test_notes_are_shown_by_plan_and_by_merge(tmp_path: Path, recipe: Path) -> None:
    written(recipe, {**yaml.safe_load(recipe.read_text()), "density": 1})
    note = "! density (line 1): has no effect here; it belongs under parameters"
    assert note in " ".join(run("plan", recipe).stdout.split())
    assert note in " ".join(run("merge", recipe, tmp_path / "out").stderr.split())


def test_a_misspelt_key_is_an_error_and_a_note_when_leniently_read(recipe: Path) -> None:
    written(recipe, {**yaml.safe_load(recipe.read_text()), "dtpye": "float16"})
    refused, accepted = run("plan", recipe), run("plan", recipe, "--lenient")
    assert (refused.exit_code, accepted.exit_code) == (1, 0)
    assert refused.stderr == "Error: dtpye (line 1): unknown key; did you mean dtype?\n"
    assert "unknown key; did you mean dtype? (ignored)" in " ".join(accepted.stdout.split())


def test_merge_prints_where_the_model_is_and_tells_its_progress_on_stderr(tmp_path: Path, recipe: Path) -> None:
    result = run("merge", recipe, tmp_path / "out", "--threads", 1)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path}/out\n")
    assert result.stderr.startswith("Merging 2 models by linear: ")
    assert (tmp_path / "out" / "config.json").exists()


def test_merge_prints_only_the_result_when_it_is_told_to_be_quiet(tmp_path: Path, recipe: Path) -> None:
    result = run("merge", recipe, tmp_path / "out", "-q", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"url": f"{tmp_path}/out", "commit": None}


def test_an_error_is_a_sentence_and_a_hint_on_stderr(tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    result = run("merge", recipe, tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: {tmp_path}/out is not empty (it holds notes.txt)\nHint: Choose a new or an empty folder.\n"
    )


MODEL = {"model": "PARENT", "parameters": {"weight": 1}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe binary",
        b"merge_method: [",
        b"- a list",
        b"just text",
        b"merge_method: linear",
        b"[" * 500,
        b"merge_method: no_such_method\nmodels: [{model: PARENT}]",
        b"merge_method: linear\nmodels: []",
        b"merge_method: linear\nmodels: [{model: /no/such/folder, parameters: {weight: 1}}]",
        b"merge_method: linear\nmodels: [{model: PARENT, parameters: {weight: .nan}}]",
        b"merge_method: linear\nmodels: [{model: PARENT, parameters: {weight: 0}}]",
        b"merge_method: passthrough\nslices: [{sources: [{model: PARENT, layer_range: [0, 99]}]}]",
        b"merge_method: passthrough\nslices: [{sources: [{model: PARENT, layer_range: [0, -1]}]}]",
        b"merge_method: slerp\nbase_model: PARENT\nmodels: [{model: PARENT}]\nparameters: {t: 0.5}",
        b"merge_method: linear\nmodels: [{model: BROKEN, parameters: {weight: 1}}]",
        b"merge_method: linear\nmodels: [{model: RECIPE, parameters: {weight: 1}}]",
    ],
)
@pytest.mark.parametrize("command", ["plan", "merge"])
def test_a_bad_recipe_is_one_error_and_exit_code_1(
    tmp_path: Path, parents: tuple[Path, Path], content: bytes, command: str
) -> None:
    broken = write_tensors(tmp_path / "broken", {})
    (broken / "model.safetensors").write_bytes(b"no header")
    recipe = tmp_path / "recipe.yml"
    for word, path in {b"PARENT": parents[0], b"BROKEN": broken, b"RECIPE": recipe}.items():
        content = content.replace(word, str(path).encode())
    recipe.write_bytes(content)
    result = run(command, recipe, *([tmp_path / "out"] if command == "merge" else []))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_cannot_be_read_is_exit_code_1(tmp_path: Path) -> None:
    missing = run("plan", tmp_path / "missing.yml")
    assert missing.stderr == f"Error: cannot read the recipe {tmp_path}/missing.yml: No such file or directory\n"
    assert run("plan", tmp_path).stderr == f"Error: cannot read the recipe {tmp_path}: Is a directory\n"
    assert missing.exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["plan"],
        ["merge", "RECIPE"],
        ["plan", "RECIPE", "--no-such-option"],
        ["plan", "RECIPE", "--shard-size", "0"],
        ["plan", "RECIPE", "--shard-size", "much"],
        ["plan", "RECIPE", "--shard-size", "1e999"],
        ["plan", "RECIPE", "--shard-size", "-4GB"],
        ["plan", "RECIPE", "--seed", "-1"],
        ["plan", "RECIPE", "--seed", "9223372036854775808"],
        ["merge", "RECIPE", "OUT", "--threads", "0"],
        ["merge", "RECIPE", "OUT", "--connections", "999"],
        ["merge", "RECIPE", "RECIPE"],
        ["merge", "RECIPE", "OUT", "--template", "missing.md"],
        ["merge", "RECIPE", "OUT", "--license", "mit"],
        ["merge", "RECIPE", "OUT", "--license", "mit", "--license-reason", ""],
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_exit_code_2(tmp_path: Path, recipe: Path, arguments: list[str]) -> None:
    places = {"RECIPE": recipe, "OUT": tmp_path / "out"}
    result = run(*[places.get(argument, argument) for argument in arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_template_that_cannot_be_rendered_is_found_before_the_merge(tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "card.md").write_text("{% if %}")
    result = run("merge", recipe, tmp_path / "out", "--template", tmp_path / "card.md")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "size"), [("5000", 5_000), ("5k", 5_000), ("5kB", 5_000), ("0.5MB", 500_000), ("2 GB", 2_000_000_000)]
)
def test_sizes_are_read_as_people_write_them(recipe: Path, text: str, size: int) -> None:
    context = COMMANDS["plan",].make_context("plan", [str(recipe), "--shard-size", text])
    assert context.params["shard_size"] == size


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_ends_in_examples_that_parse(names: tuple[str, ...]) -> None:
    assert run(*names, "--help").exit_code == 0
    _, _, examples = (COMMANDS[names].help or "").partition("Example:\n")
    lines = [line.strip() for line in examples.strip().splitlines()]
    assert lines
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "hubmerge"
        words = max((words for words in COMMANDS if tuple(arguments[: len(words)]) == words), key=len)
        COMMANDS[words].make_context(words[-1], arguments[len(words) :])


def test_the_help_states_the_defaults_that_hold() -> None:
    stated = {option.name: getattr(option, "help", "") for option in COMMANDS["merge",].params}
    defaults = StreamOptions(threads=1)
    assert f"[default: {size_text(defaults.read_ahead_bytes).replace(' ', '')}]" in stated["read_ahead"]
    assert f"[default: {defaults.connections}]" in stated["connections"]


def test_help_needs_neither_torch_nor_the_hub_client() -> None:
    code = """
import sys
from hubmerge.cli import main
try:
    main(["merge", "--help"], prog_name="hubmerge")
finally:
    assert not {"torch", "huggingface_hub", "rich", "yaml"} & set(sys.modules), "help imports too much"
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("Usage: hubmerge merge")


def test_a_locale_that_lacks_characters_is_no_failure(recipe: Path) -> None:
    command = [sys.executable, "-m", "hubmerge", "plan", recipe]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert r" \xb7 writes " in finished.stdout


def test_a_name_cannot_steer_the_terminal(tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "\x1b]0;title\x07").touch()
    result = run("merge", recipe, tmp_path / "out")
    assert result.stderr.startswith(rf"Error: {tmp_path}/out is not empty (it holds \x1b]0;title\x07)" + "\n")


def large_parents(folder: Path) -> list[Path]:
    """Returns checkpoints of zeros, stored as holes, that take seconds to merge."""
    header, infos = build_header([("weight", "BF16", (65_536, 1_024))])
    for name in ("base", "first", "second"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
        with (folder / name / "model.safetensors").open("wb") as file:
            file.write(header)
            file.truncate(infos[-1].stop)
    return [folder / "base", folder / "first", folder / "second"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_being_stopped_is_exit_code_130_and_leaves_nothing(tmp_path: Path, stop: signal.Signals) -> None:
    base, *others = large_parents(tmp_path)
    models = [{"model": str(other), "parameters": {"weight": 1, "density": 0.5}} for other in others]
    recipe = written(tmp_path / "recipe.yml", {"merge_method": "ties", "base_model": str(base), "models": models})
    process = subprocess.Popen(
        [sys.executable, "-m", "hubmerge", "merge", recipe, tmp_path / "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    while not list(tmp_path.glob("out/.hubmerge-*/*.part")):
        assert process.poll() is None, process.stderr
        time.sleep(0.01)
    process.send_signal(stop)
    stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.endswith("Error: interrupted\nHint: Run the same command again; it goes on from what is finished.\n")
    assert "Traceback" not in stderr
    assert not (tmp_path / "out").exists()
