"""A merge of two models of 7B on a machine with 14 GB of disk and 7 GB of memory, as a runner of GitHub has.

    scripts/bench_runner --folder bench-output --size small

The parents are Mistral-shaped, bf16; both are on a local Hub, outside of the limits, and the merge is published there
and verified. The process that merges has its temporary files, its home and its cache within them. One eighth of the
parents' weights is random and the rest is zero, which the Hub's file system keeps as holes: every byte is sent, hashed,
merged and received as usual, and the benchmark takes 36 GB of disk instead of 58.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
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
TILE_PIECES = 513
"""What the weights repeat; no power of two, so that no two large tensors of a model are equal."""

PIECE_BYTES = 64 * 2**10
RANDOM_BYTES = PIECE_BYTES // 8
"""At the start of each piece; the zeros after it cover whole blocks of any file system."""

PARENTS = ("bench/first", "bench/second")
TARGET = "bench/merged"


def main() -> None:
    arguments = read_arguments()
    shape = SHAPES[arguments.size]
    folder = Path(arguments.folder).absolute()
    check_room(folder, round(1.5 * model_bytes(shape) + arguments.disk * 1e9))
    work = folder / f"runner-{arguments.size}"
    shutil.rmtree(work, ignore_errors=True)
    with LocalHub(work / "hub", transport=arguments.transport) as hub:
        token = hub.create_user("bench")
        push_parents(hub, token, shape, work)
        hub.requests.clear()
        usage = merge(hub, token, arguments, work / "runner")
        read_bytes = sum(record.sent_bytes for record in hub.requests)
        is_published = usage.exit_code == 0
        written_bytes = size_of(hub, token) if is_published else 0
        is_verified = is_published and verify(token)
    report(arguments, usage, shape, read_bytes=read_bytes, written_bytes=written_bytes)
    shutil.rmtree(work)
    sys.exit(not is_verified)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="bench-output", help="for the Hub and the disk of the runner")
    parser.add_argument("--size", choices=SHAPES, default="7b")
    parser.add_argument("--method", default="slerp", choices=("slerp", "linear"))
    parser.add_argument("--disk", type=float, default=14.0, metavar="GB")
    parser.add_argument("--memory", type=float, default=7.0, metavar="GB")
    parser.add_argument(
        "--transport", choices=("lfs", "xet"), default="lfs", help="xet takes twice the disk on the Hub"
    )
    return parser.parse_args()


def model_bytes(shape: Shape) -> int:
    return 2 * sum(int(np.prod(dimensions)) for _, dimensions in shape.tensors())


def check_room(folder: Path, needed_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        sys.exit(f"{folder} has {free / 1e9:.0f} GB free; this takes {needed_bytes / 1e9:.0f} GB")


def push_parents(hub: LocalHub, token: str, shape: Shape, work: Path) -> None:
    """Publishes the parents, one file after the other, and has the Hub's file system give back their zeros."""
    # huggingface_hub reads the address of the Hub, and whether to use Xet, when it is imported.
    os.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    from huggingface_hub import HfApi

    api, folder = HfApi(token=token), work / "parent"
    for seed, repo in enumerate(PARENTS):
        api.create_repo(repo)
        folder.mkdir()
        small = {"config.json": json.dumps(shape.config()), "README.md": "---\nlicense: apache-2.0\n---\n"}
        for name, text in small.items():
            api.upload_file(path_or_fileobj=text.encode(), path_in_repo=name, repo_id=repo)
        for file in write_shards(folder, shape, seed):
            api.upload_file(path_or_fileobj=file, path_in_repo=file.name, repo_id=repo)
            dig_holes(work / "hub", size_bytes=file.stat().st_size)
            file.unlink()
        folder.rmdir()


def dig_holes(store: Path, *, size_bytes: int) -> None:
    """Makes holes of the zeros in files of this size; elsewhere than on Linux they take disk."""
    if shutil.which("fallocate"):
        for file in store.rglob("*"):
            is_full = file.is_file() and file.stat().st_size == size_bytes <= file.stat().st_blocks * 512
            if is_full:
                subprocess.run(["fallocate", "--dig-holes", file], check=False)


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
    weights = np.random.default_rng(seed).standard_normal(TILE_PIECES * RANDOM_BYTES // 2, dtype=np.float32)
    bf16 = ((weights * np.float32(0.02)).view(np.uint32) >> 16).astype("<u2")
    tile = np.zeros((TILE_PIECES, PIECE_BYTES // 2), "<u2")
    tile[:, : RANDOM_BYTES // 2] = bf16.reshape(TILE_PIECES, -1)
    return tile.tobytes()


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


def verify(token: str) -> bool:
    """Tells whether the merge is what its recipe makes of its parents, by a sample; outside of the limits."""
    command = [sys.executable, "-m", "hubmerge", "verify", TARGET, "--source-token", token]
    return subprocess.run(command, env=os.environ, check=False).returncode == 0


def size_of(hub: LocalHub, token: str) -> int:
    from huggingface_hub import HfApi

    files = HfApi(endpoint=hub.endpoint, token=token).list_repo_tree(TARGET)
    return sum(getattr(file, "size", 0) for file in files)


def report(arguments: argparse.Namespace, usage: Usage, shape: Shape, *, read_bytes: int, written_bytes: int) -> None:
    outcome = "published" if usage.exit_code == 0 else f"failed with {usage.exit_code}"
    keeper = "the kernel" if usage.is_enforced else "a thread that looks"
    title = f"{arguments.method} of two models, {arguments.size}: {outcome}"
    table = Table("", "used", "limit", "downloading", title=title)
    downloaded = f"{3 * model_bytes(shape) / 1e9:.2f} GB"
    table.add_row("disk", f"{usage.disk_bytes / 1e9:.2f} GB", f"{arguments.disk:g} GB", downloaded)
    table.add_row("memory", f"{usage.memory_bytes / 1e9:.2f} GB", f"{arguments.memory:g} GB", "")
    table.add_row("read from the Hub", f"{read_bytes / 1e9:.2f} GB", "", "")
    table.add_row("written to the Hub", f"{written_bytes / 1e9:.2f} GB", "", "")
    table.add_row("time", f"{usage.seconds:.0f} s", "", "")
    Console().print(table, f"The limits were kept by {keeper}.")


if __name__ == "__main__":
    main()
