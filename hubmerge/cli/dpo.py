"""The command `hubmerge dpo`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubmerge.cli.options import adding, recipe_options, run_options, target_token_option

if TYPE_CHECKING:
    from hubmerge.trainer.run import Tuned
    from hubmerge.trainer.settings import DpoSettings

_GROUPS = {
    "training": (
        *("learning_rate", "epochs", "max_steps", "batch_size", "grad_accumulation", "max_length"),
        *("optimizer", "seed", "report_to"),
    ),
    "loss": ("beta", "types"),
    "lora": ("r", "alpha"),
    "memory": ("quant", "vram_bytes"),
    "evaluation": ("holdout", "tasks"),
    "result": ("round", "fold_base", "private", "create_pr", "revision", "push_to", "folder", "publish"),
}
"""Group of the settings -> those of its settings that have an option."""

tuning_options = adding(
    click.option("--dataset", "datasets", multiple=True, metavar="ID_OR_FILE", help="Preferences; may be repeated."),
    click.option("--push-to", metavar="REPO_ID", help="Repo to publish to; created if it does not exist."),
    click.option("--out", "folder", metavar="DIR", help="Folder to write to, in place of a repo."),
    click.option("--private", is_flag=True, default=None, help="A repo that has to be created is private."),
    click.option("--revision", metavar="BRANCH", help="Branch to publish to [default: main]."),
    click.option("--create-pr", is_flag=True, default=None, help="Open a pull request instead of committing."),
    click.option("--adapter-only", is_flag=True, help="Publish the adapter, not a whole model."),
    click.option("--learning-rate", type=float, metavar="NUMBER", help="[default: 5e-6]"),
    click.option("--beta", type=float, metavar="NUMBER", help="How strongly the model is held back [default: 0.1]."),
    click.option("--loss", "types", multiple=True, metavar="NAME", help="One of TRL's DPO losses [default: sigmoid]."),
    click.option("--epochs", type=float, metavar="NUMBER", help="[default: 1]"),
    click.option("--max-steps", type=int, metavar="NUMBER", help="Steps, in place of epochs."),
    click.option("--batch-size", type=int, metavar="PAIRS", help="On the GPU at a time [default: what fits]."),
    click.option("--grad-accumulation", type=int, metavar="NUMBER", help="Batches a step [default: for 8 pairs]."),
    click.option("--max-length", type=int, metavar="TOKENS", help="Of prompt and answer [default: what is needed]."),
    click.option("--optimizer", metavar="NAME", help="[default: adamw_8bit]"),
    click.option("--report-to", metavar="NAME", help="Log to tensorboard, wandb, ... [default: none]."),
    click.option("--rank", "r", type=int, metavar="NUMBER", help="Rank of the adapter [default: 16]."),
    click.option("--alpha", type=float, metavar="NUMBER", help="Its alpha [default: 16]."),
    click.option("--quant", metavar="auto|none|nf4", help="How the frozen weights are held [default: auto]."),
    click.option("--vram", metavar="SIZE", help="Memory of the GPU, as in 24GB [default: that of this machine]."),
    click.option("--holdout", type=float, metavar="SHARE", help="Pairs kept for the proof [default: 0.05]."),
    click.option("--eval", "tasks", multiple=True, metavar="TASK", help="A task of lm-eval, before and after."),
    click.option("--round", metavar="nearest|stochastic", help="How the folded weights are rounded."),
    click.option("--fold-base", metavar="original|nf4", help="What the adapter is added to."),
    click.option("--work-dir", type=click.Path(path_type=Path), help="For checkpoints [default: the user's cache]."),
    target_token_option("For writing to REPO_ID"),
    click.option("--plan", "only_plan", is_flag=True, help="Show what would be done, and end."),
)


@click.command()
@click.argument("model")
@tuning_options
@recipe_options
@run_options
def dpo(model: str, only_plan: bool, as_json: bool, quiet: bool, **given: Any) -> None:
    """Tune MODEL to preferences (DPO on a LoRA adapter), add what it learned to the weights, prove and publish them.

    MODEL is a repo of the Hub, a folder, the recipe of a merge, or a file that begins with `dpo:` and says all of this.
    The budget decides what fits the GPU. The adapter is added in fp32 to the full weights, or into the merge before its
    one rounding; what is published has to keep 90 % of the margin that was trained. The same command goes on with a
    tuning that was interrupted.

    \b
    Example:
      hubmerge dpo me/merged-7b --dataset mlabonne/chatml_dpo_pairs --push-to me/tuned-7b
    """
    settings = _settings(model, given)
    if only_plan:
        _show_plan(settings, given, as_json=as_json)
    else:
        _print(_tune(settings, given, quiet=quiet), as_json=as_json)


def _settings(model: str, given: dict[str, Any]) -> DpoSettings:
    from hubmerge.trainer.settings import DpoSettings
    from hubmerge.trainer.settings_file import gpu_bytes, load_settings, parse_dataset, parse_model

    given["vram_bytes"] = None if given["vram"] is None else gpu_bytes(given["vram"])
    given["publish"] = "adapter" if given["adapter_only"] else None
    datasets = tuple(parse_dataset(written) for written in given["datasets"])
    if _is_settings_file(model):
        settings = load_settings(Path(model), lenient=given["lenient"])
        settings = replace(settings, datasets=datasets or settings.datasets)
    else:
        settings = DpoSettings(parse_model(model, lenient=given["lenient"]), datasets)
    return replace(settings, **{group: _changed(getattr(settings, group), group, given) for group in _GROUPS})


def _changed(settings: Any, group: str, given: dict[str, Any]) -> Any:
    """Returns a group of settings with what the command line says of it."""
    values = {name: given[name] for name in _GROUPS[group]}
    return replace(settings, **{name: value for name, value in values.items() if value not in (None, ())})


def _is_settings_file(model: str) -> bool:
    path = Path(model)
    if path.suffix not in (".yml", ".yaml") or not path.is_file():
        return False
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines())
    return next((line for line in lines if line and line != "---"), "").startswith("dpo:")


def _show_plan(settings: DpoSettings, given: dict[str, Any], *, as_json: bool) -> None:
    from hubmerge.trainer.plan import as_data, describe, make_plan

    plan = make_plan(settings, token=given["source_token"])
    click.echo(json.dumps(as_data(plan), indent=2) if as_json else "\n".join(describe(plan)))


def _tune(settings: DpoSettings, given: dict[str, Any], *, quiet: bool) -> Tuned:
    from huggingface_hub.utils import disable_progress_bars
    from rich.console import Console

    from hubmerge.cli.dpo_display import DpoDisplay
    from hubmerge.cli.options import merge_options
    from hubmerge.trainer.run import DpoOptions, tune

    options = DpoOptions(given["work_dir"], merge_options(given), given["target_token"])
    disable_progress_bars()
    with DpoDisplay(Console(stderr=True, quiet=quiet)) as display:
        return tune(settings, options, display)


def _print(tuned: Tuned, *, as_json: bool) -> None:
    if not as_json:
        click.echo(tuned.published.url)
        return
    found = {"url": tuned.published.url, "commit": tuned.published.commit, **tuned.story.as_data()}
    click.echo(json.dumps(found, indent=2))
