"""The command `hubmerge extract-lora`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubmerge.cli.options import json_option, memory_budget_option, quiet_option, source_token_option

if TYPE_CHECKING:
    from hubmerge.extract.plan import ExtractOptions

DEFAULT_RANK = 32
DEFAULT_MAX_RANK = 256


@click.command("extract-lora")
@click.argument("finetuned")
@click.argument("base")
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--rank", type=click.IntRange(min=1), metavar="NUMBER", help=f"Rank of every weight [default: {DEFAULT_RANK}]."
)
@click.option(
    "--energy",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="Instead: of each weight the least rank that keeps this share of its squared norm, such as 0.95.",
)
@click.option(
    "--max-rank",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help=f"Most that --energy may take [default: {DEFAULT_MAX_RANK}].",
)
@click.option(
    "--include", multiple=True, metavar="REGEX|ROLE", help="Only these modules; roles are embed, head, norm, layer."
)
@click.option("--exclude", multiple=True, metavar="REGEX|ROLE", help="Not these modules.")
@click.option(
    "--embeddings/--no-embeddings", default=True, show_default=True, help="Keep changes of embedding and head."
)
@click.option("--save-norms", is_flag=True, help="Copy norms and biases, which no LoRA can express.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of the adapter; peft trains in float32.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    metavar="NUMBER",
    default=0,
    show_default=True,
    help="Of the random sketches.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="NUMBER", help="Tensors worked on at a time [default: the cores]."
)
@memory_budget_option("512MB to read ahead, and 6GB for differences and their factors")
@source_token_option("For reading the models")
@json_option()
@quiet_option()
def extract_lora(finetuned: str, base: str, out_dir: Path, as_json: bool, quiet: bool, **given: Any) -> None:
    """Write what FINETUNED has learnt beyond BASE into OUT_DIR, as a LoRA adapter for peft.

    Both are Hub ids, with @revision or without, or folders. One tensor of each is read at a time; neither model is
    downloaded or loaded whole.

    \b
    Example:
      hubmerge extract-lora mlabonne/NeuralBeagle14-7B mistralai/Mistral-7B-v0.1 beagle-lora --rank 64
    """
    from rich.console import Console

    from hubmerge.cli.extract_display import ExtractDisplay, report_view
    from hubmerge.extract.run import extract_lora as run

    console = Console(stderr=True, quiet=quiet)
    with ExtractDisplay(console) as display:
        made = run(finetuned, base, out_dir, options=_options(given), progress=display)
    if as_json:
        click.echo(json.dumps({"folder": str(made.folder), "notes": list(made.notes), **made.report.as_json()}))
        return
    console.print(report_view(made.report))
    click.echo(made.folder)


def _options(given: dict[str, Any]) -> ExtractOptions:
    from hubmerge.extract.factors import RankRule
    from hubmerge.extract.parts import Choice
    from hubmerge.extract.plan import ExtractOptions
    from hubmerge.merge.stream import StreamOptions, usable_cores
    from hubmerge.weights.dtypes import FLOAT_CODES

    rank, energy, most = given["rank"], given["energy"], given["max_rank"]
    if rank is not None and energy is not None:
        raise click.UsageError("--rank and --energy exclude each other; --max-rank bounds --energy")
    if most is not None and energy is None:
        raise click.UsageError("--max-rank goes with --energy")
    rule = RankRule(rank or DEFAULT_RANK) if energy is None else RankRule(most or DEFAULT_MAX_RANK, energy)
    return ExtractOptions(
        rule=rule,
        choice=Choice(
            include=given["include"],
            exclude=given["exclude"],
            embeddings=given["embeddings"],
            save_norms=given["save_norms"],
        ),
        dtype=FLOAT_CODES[given["dtype"]],
        seed=given["seed"],
        stream=StreamOptions(threads=given["threads"] or usable_cores()),
        memory_bytes=given["memory_budget"],
        source_token=given["source_token"],
    )
