"""A merge of two models of 7B on a machine with 14 GB of disk and 7 GB of memory, as a runner of GitHub has.

    scripts/bench_runner --folder bench-output --size small

The parents are Mistral-shaped, bf16, of random weights that repeat; both are on a local Hub, outside of the limits, and
the merge is published there. The process that merges has its temporary files, its home and its cache within them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from bench_merge import Shape
from held import Usage, run_held
from rich.console import Console
from rich.table import Table

from hubmerge.localhub import LocalHub
from hubmerge.weights.header import build_header

SHAPES = {
    "small": Shape(hidden=512, intermediate=1408, layers=4, vocabulary=4000, key_value=128),
    "7b": Shape(hidden=4096, intermediate=14336, layers=32, vocabulary=32000, key_value=1024),
}
TILE_BYTES = 32 * 2**20 + 1234
"""Of random weights, repeated; no power of two, so that no two rows of a matrix are equal."""

PARENTS = ("bench/first", "bench/second")
TARGET = "bench/merged"


def main() -> None:
    arguments = read_arguments()
    shape = SHAPES[arguments.size]
    folder = Path(arguments.folder).absolute()
    model_bytes = 2 * sum(int(np.prod(dimensions)) for _, dimensions in shape.tensors())
    check_room(folder, 5 * model_bytes)
    work = folder / f"runner-{arguments.size}"
    shutil.rmtree(work, ignore_errors=True)
    with LocalHub(work / "hub", transport=arguments.transport) as hub:
        token = hub.create_user("bench")
        push_parents(hub, token, shape, work / "parent")
        hub.requests.clear()
        usage = merge(hub, token, arguments, work / "runner")
        read_bytes = sum(record.sent_bytes for record in hub.requests)
        written_bytes = size_of(hub, token) if usage.exit_code == 0 else 0
    shutil.rmtree(work)
    report(arguments, usage, read_bytes=read_bytes, written_bytes=written_bytes)
    sys.exit(usage.exit_code != 0)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="bench-output", help="for the Hub, which needs five times a model")
    parser.add_argument("--size", choices=SHAPES, default="7b")
    parser.add_argument("--method", default="slerp", choices=("slerp", "linear"))
    parser.add_argument("--disk", type=float, default=14.0, metavar="GB")
    parser.add_argument("--memory", type=float, default=7.0, metavar="GB")
    parser.add_argument(
        "--transport", choices=("lfs", "xet"), default="lfs", help="xet takes twice the disk on the Hub"
    )
    return parser.parse_args()


def check_room(folder: Path, needed_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        sys.exit(f"{folder} has {free / 1e9:.0f} GB free; this takes {needed_bytes / 1e9:.0f} GB")


def push_parents(hub: LocalHub, token: str, shape: Shape, folder: Path) -> None:
    """Publishes the parents, one output file after the other, so that none is on the disk twice."""
    # huggingface_hub reads the address of the Hub, and whether to use Xet, when it is imported.
    os.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    for seed, repo in enumerate(PARENTS):
        api.create_repo(repo)
        folder.mkdir()
        small = {"config.json": json.dumps(shape.config()), "README.md": "---\nlicense: apache-2.0\n---\n"}
        for name, text in small.items():
            api.upload_file(path_or_fileobj=text.encode(), path_in_repo=name, repo_id=repo)
        for file in write_shards(folder, shape, seed):
            api.upload_file(path_or_fileobj=file, path_in_repo=file.name, repo_id=repo)
            file.unlink()
        folder.rmdir()


def write_shards(folder: Path, shape: Shape, seed: int) -> Iterator[Path]:
    """Yields the files of a checkpoint, a few layers each and the index last; each must be taken before the next."""
    tensors = list(shape.tensors())
    count = 4
    groups = [tensors[number * len(tensors) // count : (number + 1) * len(tensors) // count] for number in range(count)]
    weight_map: dict[str, str] = {}
    tile = random_tile(seed)
    for number, group in enumerate(groups, start=1):
        file = folder / f"model-{number:05}-of-{count:05}.safetensors"
        header, infos = build_header([(name, "BF16", dimensions) for name, dimensions in group])
        data_bytes = sum(2 * int(np.prod(info.shape)) for info in infos)
        with file.open("wb") as stream:
            stream.write(header)
            for start in range(0, data_bytes, len(tile)):
                stream.write(tile[: min(len(tile), data_bytes - start)])
        weight_map |= {name: file.name for name, _ in group}
        yield file
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    yield index


def random_tile(seed: int) -> bytes:
    weights = np.random.default_rng(seed).standard_normal(TILE_BYTES // 2, dtype=np.float32) * np.float32(0.02)
    return (weights.view(np.uint32) >> 16).astype("<u2").tobytes()


def merge(hub: LocalHub, token: str, arguments: argparse.Namespace, folder: Path) -> Usage:
    models = [{"model": repo, "parameters": {"weight": 0.5}} for repo in PARENTS]
    recipe = {"merge_method": "linear", "models": models, "dtype": "bfloat16"}
    if arguments.method == "slerp":
        recipe = {
            "merge_method": "slerp",
            "models": [{"model": repo} for repo in PARENTS],
            "base_model": PARENTS[0],
            "parameters": {"t": 0.5},
            "dtype": "bfloat16",
        }
    file = folder.with_name("recipe.yaml")
    file.write_text(json.dumps(recipe))
    inside = dict.fromkeys(("TMPDIR", "HOME", "HF_HOME"), str(folder))
    variables = os.environ | inside | {"HF_TOKEN": token, "HF_HUB_DISABLE_TELEMETRY": "1"}
    if arguments.transport == "xet":
        variables.pop("HF_HUB_DISABLE_XET", None)
    usage, printed = run_held(
        [sys.executable, "-m", "hubmerge", "merge-and-push", str(file), TARGET, "--json", "--quiet"],
        folder,
        variables,
        disk_limit_bytes=round(arguments.disk * 1e9),
        memory_limit_bytes=round(arguments.memory * 1e9),
    )
    sys.stdout.write(printed)
    return usage


def size_of(hub: LocalHub, token: str) -> int:
    from huggingface_hub import HfApi

    files = HfApi(endpoint=hub.endpoint, token=token).list_repo_tree(TARGET)
    return sum(getattr(file, "size", 0) for file in files)


def report(arguments: argparse.Namespace, usage: Usage, *, read_bytes: int, written_bytes: int) -> None:
    outcome = "published" if usage.exit_code == 0 else f"failed with {usage.exit_code}"
    table = Table("", "used", "limit", title=f"{arguments.method} of two models, {arguments.size}: {outcome}")
    table.add_row("disk", f"{usage.disk_bytes / 1e9:.2f} GB", f"{arguments.disk:g} GB")
    table.add_row("memory", f"{usage.memory_bytes / 1e9:.2f} GB", f"{arguments.memory:g} GB")
    table.add_row("read from the Hub", f"{read_bytes / 1e9:.2f} GB", "")
    table.add_row("written to the Hub", f"{written_bytes / 1e9:.2f} GB", "")
    table.add_row("time", f"{usage.seconds:.0f} s", "")
    Console().print(table)


if __name__ == "__main__":
    main()
