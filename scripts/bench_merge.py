"""Times whole merges beside mergekit and beside a plain copy of the same bytes, in turn, and prints medians and ratios.

    pip install -e '.[bench]'
    python scripts/bench_merge.py --folder bench-output --size 1.1b --runs 3

Checkpoints are Mistral-shaped, bf16, with random weights: a base and siblings that differ from it a little, as
fine-tunes do. Each round runs every competitor once, so that a machine whose speed drifts is unfair to none. Times
are those of whole processes, start-up included; memory is the peak of anonymous pages, which files in the page cache
are not part of.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from safetensors.torch import save_file

import hubmerge

READ_BYTES = 16 << 20
SIBLINGS = ("a", "b", "c")
TREE_LEAVES = 10
DIFFERENT_ROUNDING = 0.05
"""What computing with task vectors in bf16 may do."""
DIFFERENT_MASKS = 0.2
"""What two random choices of the same task vectors may do; by DELTA these are a tenth as long as the weights."""
DELTA = 0.1
"""Standard deviation of a sibling's difference from the base, in those of the base's weights."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Mistral-shaped model."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    key_value: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields every tensor's name and shape."""
        hidden, inner = self.hidden, self.intermediate
        yield "model.embed_tokens.weight", (self.vocabulary, hidden)
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            yield prefix + "input_layernorm.weight", (hidden,)
            yield prefix + "mlp.down_proj.weight", (hidden, inner)
            yield prefix + "mlp.gate_proj.weight", (inner, hidden)
            yield prefix + "mlp.up_proj.weight", (inner, hidden)
            yield prefix + "post_attention_layernorm.weight", (hidden,)
            yield prefix + "self_attn.k_proj.weight", (self.key_value, hidden)
            yield prefix + "self_attn.o_proj.weight", (hidden, hidden)
            yield prefix + "self_attn.q_proj.weight", (hidden, hidden)
            yield prefix + "self_attn.v_proj.weight", (self.key_value, hidden)
        yield "model.norm.weight", (hidden,)
        yield "lm_head.weight", (self.vocabulary, hidden)

    def config(self) -> dict[str, object]:
        """Returns config.json."""
        return {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // 64,
            "num_key_value_heads": self.key_value // 64,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }


SIZES: Mapping[str, Shape] = {
    "tiny": Shape(hidden=256, intermediate=704, layers=6, vocabulary=4000, key_value=64),
    "1.1b": Shape(hidden=2048, intermediate=5632, layers=22, vocabulary=32000, key_value=256),
    "7b": Shape(hidden=4096, intermediate=14336, layers=32, vocabulary=32000, key_value=1024),
}


@dataclass(frozen=True)
class Job:
    """One merge to time.

    Attributes:
        recipe: YAML; several documents for a tree.
        inputs: The checkpoints that it reads.
    """

    name: str
    recipe: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    wall_seconds: float
    cpu_seconds: float
    anonymous_bytes: int


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("bench-output"), help="for checkpoints, which are kept")
    parser.add_argument("--size", choices=SIZES, default="1.1b")
    parser.add_argument("--runs", type=int, default=3, help="rounds; the table shows medians")
    parser.add_argument("--only", nargs="*", help="names of the merges to run")
    parser.add_argument("--threads", type=int, help="of hubmerge")
    parser.add_argument("--device", default="cpu", help="of hubmerge")
    parser.add_argument("--mergekit", default="mergekit-yaml", help="the program, or an empty word to leave it out")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    compileall.compile_dir(hubmerge.__path__[0], quiet=1)  # as pip does when it installs a tool
    folder = arguments.folder.resolve() / arguments.size
    chosen = [job for job in jobs() if not arguments.only or job.name in arguments.only]
    make_checkpoints(folder, SIZES[arguments.size], dict.fromkeys(name for job in chosen for name in job.inputs))
    options = ["--device", arguments.device, *(("--threads", str(arguments.threads)) if arguments.threads else ())]
    results = {job.name: measure(job, folder, arguments.runs, arguments.mergekit, options) for job in chosen}
    print_table(results)


def jobs() -> list[Job]:
    """Returns the merges of the table."""
    weighted = [("a", 0.5), ("b", 0.3), ("c", 0.2)]
    return [
        Job("linear", _models("linear", [_model(name, weight=weight) for name, weight in weighted]), SIBLINGS),
        Job("slerp", _models("slerp", ["- model: ./a", "- model: ./b"], base="a", extra=_GRADIENTS), ("a", "b")),
        *(_task_vector_job(method) for method in ("ties", "dare_ties")),
        Job("passthrough", _PASSTHROUGH, ("a", "b")),
        _tree_job(),
    ]


def _model(name: str, **parameters: float) -> str:
    return f"- model: ./{name}\n  parameters: {json.dumps(parameters)}"


def _models(method: str, models: Sequence[str], *, base: str | None = None, extra: str = "") -> str:
    head = f"merge_method: {method}\ndtype: bfloat16\n" + (f"base_model: ./{base}\n" if base else "")
    return head + extra + "models:\n" + "\n".join(models) + "\n"


_GRADIENTS = """\
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
"""

_PASSTHROUGH = """\
slices:
  - sources: [{model: ./a, layer_range: [0, FIRST_STOP]}]
  - sources: [{model: ./b, layer_range: [SECOND_START, LAYERS]}]
merge_method: passthrough
dtype: bfloat16
"""


def _task_vector_job(method: str) -> Job:
    models = ["- model: ./base", *(_model(name, weight=0.4, density=0.5) for name in SIBLINGS)]
    return Job(method, _models(method, models, base="base"), ("base", *SIBLINGS))


def _tree_job() -> Job:
    """Ten leaves in three levels: pairs and triples by slerp and linear, then one linear merge of those."""
    leaves = [f"leaf{number}" for number in range(TREE_LEAVES)]
    pairs = [leaves[start : start + 2] for start in range(0, TREE_LEAVES, 2)]
    documents = [
        f"name: pair{i}\n"
        + _models("slerp", [f"- model: ./{x}", f"- model: ./{y}"], base=x, extra="parameters: {t: 0.5}\n")
        for i, (x, y) in enumerate(pairs)
    ]
    halves = (("left", "pair0", "pair1"), ("right", "pair2", "pair3", "pair4"))
    for name, *parts in halves:
        entries = [f"- {{model: {part}, parameters: {{weight: 1.0}}}}" for part in parts]
        documents.append(f"name: {name}\n" + _models("linear", entries))
    entries = [f"- {{model: {name}, parameters: {{weight: 1.0}}}}" for name, *_ in halves]
    return Job("tree", "---\n".join([*documents, _models("linear", entries)]), tuple(leaves))


def make_checkpoints(folder: Path, shape: Shape, names: Mapping[str, None]) -> None:
    """Writes the checkpoints that are not there yet; leaves of a tree are siblings too."""
    base: dict[str, torch.Tensor] | None = None
    for name in names:
        target = folder / name
        if (target / "config.json").exists():
            continue
        if base is None:
            generator = torch.Generator().manual_seed(0)
            base = {key: torch.randn(size, generator=generator).mul_(0.02).bfloat16() for key, size in shape.tensors()}
        target.mkdir(parents=True, exist_ok=True)
        save_file(base if name == "base" else _sibling(base, name), target / "model.safetensors", {"format": "pt"})
        (target / "config.json").write_text(json.dumps(shape.config()))


def _sibling(base: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(name.encode()))
    return {
        key: (tensor.float() + torch.randn(tensor.shape, generator=generator).mul_(0.02 * DELTA)).bfloat16()
        for key, tensor in base.items()
    }


def measure(job: Job, folder: Path, runs: int, mergekit: str, options: Sequence[str]) -> dict[str, list[Cost]]:
    """Returns the costs of every competitor, run in turn."""
    layers = json.loads((folder / job.inputs[0] / "config.json").read_text())["num_hidden_layers"]
    recipe = folder / f"{job.name}.yml"
    numbers = {"FIRST_STOP": layers * 2 // 3, "SECOND_START": layers // 3, "LAYERS": layers}
    text = job.recipe
    for word, number in numbers.items():
        text = text.replace(word, str(number))
    recipe.write_text(text)
    competitors: dict[str, Callable[[], list[str]]] = {
        "copy": lambda: ["sh", "-c", _copy_command(job.inputs)],
        "hubmerge": lambda: [sys.executable, "-m", "hubmerge", "merge", recipe.name, "out-hubmerge", "-q", *options],
    }
    if mergekit and shutil.which(mergekit):
        competitors["mergekit"] = lambda: _mergekit_command(mergekit, recipe.name, is_tree="---" in text)
    costs: dict[str, list[Cost]] = {name: [] for name in competitors}
    for _ in range(runs):
        for name, command in competitors.items():
            shutil.rmtree(folder / f"out-{name}", ignore_errors=True)
            settle(folder / name for name in job.inputs)
            costs[name].append(timed(command(), folder))
    if "mergekit" in competitors:
        limit = DIFFERENT_MASKS if job.name.startswith("dare") else DIFFERENT_ROUNDING
        check_agreement(folder / "out-hubmerge", folder / "out-mergekit", limit=limit)
    for name in competitors:
        shutil.rmtree(folder / f"out-{name}", ignore_errors=True)
    return costs


def settle(checkpoints: Iterable[Path]) -> None:
    """Has the disk write what is left of the last run, and the inputs in memory: who comes first pays for nobody."""
    os.sync()
    for checkpoint in checkpoints:
        with (checkpoint / "model.safetensors").open("rb") as file:
            while file.read(READ_BYTES):
                pass


def _mergekit_command(mergekit: str, recipe: str, *, is_tree: bool) -> list[str]:
    """Returns the command of a merge; that of a tree runs its steps one after another, with models in between."""
    if not is_tree:
        return [mergekit, recipe, "out-mergekit", "--allow-crimes"]
    multi = mergekit.removesuffix("yaml") + "multi"
    return [multi, recipe, "--intermediate-dir", "out-mergekit/steps", "--out-path", "out-mergekit"]


def _copy_command(inputs: Sequence[str]) -> str:
    """Reads every input and writes as much as one of them."""
    first, *others = (f"{name}/model.safetensors" for name in inputs)
    return f"mkdir -p out-copy && cat {' '.join(others)} > /dev/null && cp {first} out-copy/"


def timed(command: Sequence[str], folder: Path) -> Cost:
    """Runs a process to its end."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    sampler = _AnonymousMemory(process.pid)
    sampler.start()
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    sampler.done.set()
    sampler.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{errors.decode()[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, sampler.peak_bytes)


class _AnonymousMemory(threading.Thread):
    """Watches a process's anonymous resident pages."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.peak_bytes = 0
        self._status = Path(f"/proc/{pid}/status")

    def run(self) -> None:
        """Samples until `done`."""
        while not self.done.wait(0.02):
            try:
                lines = self._status.read_text().splitlines()
            except OSError:
                return
            kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
            self.peak_bytes = max(self.peak_bytes, kilobytes * 1024)


def check_agreement(ours: Path, theirs: Path, *, limit: float) -> None:
    """Stops the benchmark if a tensor of the two results is further apart than `limit` of its length."""
    mine, other = _weights(ours), _weights(theirs)
    for name, (file, key) in mine.items():
        with safe_open(file, "pt") as left, safe_open(other[name][0], "pt") as right:
            a, b = left.get_tensor(key).double(), right.get_tensor(key).double()
        distance = float((a - b).norm() / b.norm().clamp_min(1e-12))
        if distance > limit:
            sys.exit(f"{name} of {ours} differs from mergekit's by {distance:.1%}")


def _weights(folder: Path) -> dict[str, tuple[Path, str]]:
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as handle:
            found.update({key: (file, key) for key in handle.keys()})  # noqa: SIM118  # not a mapping
    return found


def print_table(results: Mapping[str, Mapping[str, Sequence[Cost]]]) -> None:
    """Prints medians over the rounds, and the ratios of those of the same round."""
    table = Table(title=f"medians; torch {torch.__version__}, {os.cpu_count()} cores")
    for heading in ("merge", "tool", "wall s", "min-max", "CPU s", "anonymous MB", "tool / copy", "mergekit x"):
        table.add_column(heading, justify="left" if heading in ("merge", "tool") else "right")
    for merge, costs in results.items():
        for tool, runs in costs.items():
            table.add_row(
                merge, tool, *_figures(runs), _ratio(runs, costs["copy"]), _ratio(costs.get("mergekit"), runs)
            )
        table.add_section()
    Console(width=120).print(table)


def _figures(runs: Sequence[Cost]) -> tuple[str, ...]:
    walls = [cost.wall_seconds for cost in runs]
    return (
        f"{statistics.median(walls):.2f}",
        f"{min(walls):.2f}-{max(walls):.2f}",
        f"{statistics.median(cost.cpu_seconds for cost in runs):.2f}",
        f"{statistics.median(cost.anonymous_bytes for cost in runs) / 1e6:.0f}",
    )


def _ratio(numerator: Sequence[Cost] | None, denominator: Sequence[Cost]) -> str:
    if not numerator:
        return ""
    pairs = zip(numerator, denominator, strict=True)
    return f"{statistics.median(a.wall_seconds / b.wall_seconds for a, b in pairs):.2f}"


if __name__ == "__main__":
    main()
