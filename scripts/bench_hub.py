"""Times a merge from Hub to Hub over a wire of limited speed, beside the time that its bytes alone need.

    python scripts/bench_hub.py --folder bench-output --size 1.1b --gigabits 1

The parents lie on a local Hub whose downloads share one wire of the given speed, and its uploads another, as on a line
that is equally fast both ways. Nothing can be faster than the longer of reading the parents and writing the result.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_merge import SIZES, jobs, make_checkpoints, timed
from rich.console import Console
from rich.table import Table

from hubmerge.localhub import LocalHub
from hubmerge.localhub.options import HubOptions

OWNER = "local"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("bench-output"), help="for checkpoints, which are kept")
    parser.add_argument("--size", choices=SIZES, default="1.1b")
    parser.add_argument("--gigabits", type=float, default=1.0, help="speed of the wire, each way, in Gbit/s")
    parser.add_argument("--only", nargs="*", default=["slerp", "ties"], help="names of the merges to run")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve() / arguments.size
    chosen = [job for job in jobs() if job.name in arguments.only]
    names = dict.fromkeys(name for job in chosen for name in job.inputs)
    make_checkpoints(folder, SIZES[arguments.size], names)
    table = Table(title=f"Hub to Hub at {arguments.gigabits:g} Gbit/s each way, {arguments.size}")
    for heading in ("merge", "read s", "write s", "merge s", "merge / max(read, write)", "anonymous MB"):
        table.add_column(heading, justify="left" if heading == "merge" else "right")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        _push(Path(scratch, "hub"), folder, list(names))
        for job in chosen:
            recipe = Path(scratch, f"{job.name}.yml")
            recipe.write_text(job.recipe.replace("./", f"{OWNER}/"))
            table.add_row(job.name, *_measured(Path(scratch), recipe, folder, job.inputs, arguments.gigabits))
    Console(width=120).print(table)


def _push(root: Path, folder: Path, names: list[str]) -> None:
    with LocalHub(root, port=0) as hub:
        for name in names:
            code = (
                "from huggingface_hub import HfApi; api = HfApi(); "
                f"api.create_repo('{OWNER}/{name}'); api.upload_folder(repo_id='{OWNER}/{name}', folder_path='{name}')"
            )
            subprocess.run([sys.executable, "-c", code], cwd=folder, env=_environment(hub, root), check=True)


def _measured(scratch: Path, recipe: Path, folder: Path, inputs: tuple[str, ...], gigabits: float) -> tuple[str, ...]:
    rate = round(gigabits * 1e9 / 8)
    size_bytes = (folder / inputs[0] / "model.safetensors").stat().st_size
    read, write = size_bytes * len(inputs) / rate, size_bytes / rate
    with LocalHub(scratch / "hub", port=0, options=HubOptions(bytes_per_second=rate)) as hub:
        target = f"{OWNER}/merged-{recipe.stem}"
        command = [sys.executable, "-m", "hubmerge", "merge-and-push", recipe.name, target, "--public", "-q"]
        consent = ["--license", "mit", "--license-reason", "random weights"]
        os.environ |= _environment(hub, scratch / "hub")
        cost = timed([*command, *consent], scratch)
    ratio = cost.wall_seconds / max(read, write)
    seconds = (f"{value:.1f}" for value in (read, write, cost.wall_seconds))
    return (*seconds, f"{ratio:.2f}", f"{cost.anonymous_bytes / 1e6:.0f}")


def _environment(hub: LocalHub, root: Path) -> dict[str, str]:
    """Returns the environment of a client of the Hub, with a cache of its own so that nothing is there already."""
    home = {"HF_HOME": str(root.parent / "hf-home"), "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token}
    return {**os.environ, **home, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


if __name__ == "__main__":
    main()
