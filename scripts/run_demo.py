"""The whole of hubmerge on one machine without network or GPU: train siblings, push, merge from Hub to Hub, measure.

scripts/demo [--folder demo-output] [--seed 4]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from hubmerge.localhub import LocalHub

if TYPE_CHECKING:
    from huggingface_hub import HfApi

OWNER = "demo"
QUESTIONS = 400

MODELS = """\
models:
  - {{model: {owner}/base}}
  - {{model: {owner}/reverse, parameters: {parameters}}}
  - {{model: {owner}/sort, parameters: {parameters}}}
  - {{model: {owner}/swap, parameters: {parameters}}}
base_model: {owner}/base
dtype: bfloat16
"""

RECIPES: Mapping[str, str] = {
    "slerp": f"""\
models:
  - model: {OWNER}/reverse
  - model: {OWNER}/sort
merge_method: slerp
base_model: {OWNER}/reverse
parameters:
  t:
    - filter: self_attn
      value: [0.3, 0.5, 0.7]
    - value: 0.5
dtype: bfloat16
""",
    "ties": "merge_method: ties\n" + MODELS.format(owner=OWNER, parameters="{weight: 1.0, density: 0.7}"),
    "dare-ties": "merge_method: dare_ties\n" + MODELS.format(owner=OWNER, parameters="{weight: 0.4, density: 0.8}"),
    "passthrough": f"""\
slices:
  - sources: [{{model: {OWNER}/reverse, layer_range: [0, 6]}}]
  - sources: [{{model: {OWNER}/sort, layer_range: [4, 8]}}]
merge_method: passthrough
dtype: bfloat16
""",
}


def main() -> None:
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("demo-output"), help="where the Hub and the recipes go")
    parser.add_argument("--seed", type=int, default=4, help="of the training")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    with LocalHub(folder / "hub") as hub:
        token = hub.create_user(OWNER)
        use_hub(hub.endpoint, token, folder)
        run(folder, seed=arguments.seed, console=Console())


def use_hub(endpoint: str, token: str, folder: Path) -> None:
    """Points every Hugging Face client of this process and its children at the local Hub; they read it at import."""
    os.environ |= {
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": token,
        "HF_HOME": str(folder / "hf-home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_XET_TELEMETRY_ENABLED": "0",
        "TRANSFORMERS_VERBOSITY": "error",
    }


def run(folder: Path, *, seed: int, console: Console) -> None:
    """Trains, pushes, merges, measures and prints the table."""
    from huggingface_hub import HfApi
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    api = HfApi()
    console.rule("1. Train a base and its siblings on this machine")
    parents = push_family(api, folder, seed=seed, console=console)
    console.rule("2. Merge them from Hub to Hub")
    merges = [merge(name, recipe, folder, console) for name, recipe in RECIPES.items()]
    console.rule("3. Load every model from the Hub and let it solve puzzles it has not seen")
    console.print(score_table(parents, merges))
    card = api.hf_hub_download(merges[1], "README.md")
    console.print(f"\nThe model card of {merges[1]}: {card}")
    console.print(f"Look around: hubmerge hub serve {folder / 'hub'}")


def push_family(api: HfApi, folder: Path, *, seed: int, console: Console) -> list[str]:
    """Returns the repo ids of the base and its siblings, trained and pushed."""
    from scripts import siblings

    began = time.monotonic()
    repos = []
    for name, path in siblings.write_family(folder / "siblings", owner=OWNER, seed=seed).items():
        repo = f"{OWNER}/{name}"
        api.create_repo(repo, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=path, commit_message=f"Upload {name}")
        repos.append(repo)
    console.print(f"Trained and pushed {', '.join(repos)} in {time.monotonic() - began:.0f} s")
    return repos


def merge(name: str, recipe: str, folder: Path, console: Console) -> str:
    """Returns the repo id of a merge, made by the command that a user would type."""
    path = folder / f"{name}.yml"
    path.write_text(recipe)
    repo = f"{OWNER}/merged-{name}"
    command = ["hubmerge", "merge-and-push", str(path), repo]
    console.print(f"\n[bold]$ {' '.join(['hubmerge', 'merge-and-push', path.name, repo])}[/bold]")
    subprocess.run([sys.executable, "-m", *command], check=True)
    return repo


def score_table(parents: list[str], merges: list[str]) -> Table:
    """Returns the share of puzzles that each model solves to the letter."""
    from scripts import siblings

    table = Table(title=f"Puzzles solved, of {QUESTIONS} each")
    for heading in ("model", *siblings.TASKS, "mean"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for repo in [*parents, *merges]:
        scores = scores_of(repo)
        table.add_row(repo, *(f"{score:.0%}" for score in scores), f"{sum(scores) / len(scores):.0%}")
        if repo == parents[-1]:
            table.add_section()
    return table


def scores_of(repo: str) -> list[float]:
    """Returns a model's accuracy on each task, loaded back from the Hub."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from scripts import siblings

    model = AutoModelForCausalLM.from_pretrained(repo, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(repo)
    return [siblings.accuracy(model, tokenizer, task, QUESTIONS) for task in siblings.TASKS]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
