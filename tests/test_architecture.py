"""The law of the layers, read from the source: who may import whom, and where certain libraries may be named."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hubmerge"

LAYERS = (
    ("errors", "version", "lazy_torch"),
    (
        "weights.header",
        "weights.ranges",
        "weights.dtypes",
        "weights.reference",
        "weights.front_matter",
        "merge.settings",
        "merge.layers",
        "merge.modules",
    ),
    ("merge.native",),
    ("merge.methods",),
    ("weights.files", "weights.shards", "weights.hub_client", "weights.hub_errors", "weights.hub_files"),
    (
        *("weights.subfolder", "weights.json_files", "weights.unsupported", "weights.shard_index"),
        *("weights.snapshot", "weights.hub_snapshot"),
    ),
    ("weights.lora_config", "weights.lora", "weights.checkpoint"),
    ("publish", "card", "tokenizer", "merge.row_map"),
    (
        "merge.devices",
        "merge.watch",
        "merge.expr",
        "merge.holding",
        "merge.random_numbers",
        "merge.dither",
        "merge.nodes",
        "merge.evaluate",
        "merge.on_card",
        "merge.recipe",
    ),
    ("merge.planned", "merge.findings", "merge.naming", "merge.slots", "merge.modular"),
    ("merge.assemble", "merge.adapted", "merge.result_config"),
    ("merge.token_rules", "merge.token_tables", "merge.vocabularies", "merge.chat_template"),
    ("merge.moe.target", "merge.moe.assemble", "merge.moe.check"),
    ("merge.planner", "merge.plan", "merge.fingerprint"),
    ("lineage",),
    ("merge.explain", "merge.normalise", "merge.side_files", "merge.progress"),
    ("merge.windows", "merge.read_ahead", "merge.workers", "merge.stream"),
    ("merge.moe.prompts", "merge.moe.forward", "merge.moe.gates"),
    ("diagnostics",),
    ("merge.describe", "merge.ancestry", "merge.licensing", "merge.documents", "merge.memory"),
    ("merge.plan_note", "merge.limits", "merge.summary", "merge.options", "merge.pipeline"),
    ("extract", "verify"),
    ("merge.preview", "existing"),
    ("republish",),
    ("trainer.settings", "trainer.settings_file"),
    ("trainer",),
    ("automation",),
    ("localhub",),
    ("cli", "__main__"),
)
"""From the ground up; a module imports from its own line or from those above it."""

HUB_MODULES = (
    "weights.hub_client",
    "weights.hub_errors",
    "weights.hub_files",
    "weights.hub_snapshot",
    "publish.abandoned",
    "publish.access",
    "publish.hub",
    "publish.hub_repo",
    "publish.refusals",
    "publish.small_files",
    "card.validate",
    "lineage.fetch",
    "verify.history",
    "automation.hub_jobs",
    "automation.jobs",
    "automation.watch",
    "cli.dpo",
    "cli.merge",
    "trainer.dataset_source",
)
"""Where huggingface_hub may be imported: the files that talk to the Hub."""


TRANSFORMERS_MODULES = ("merge.moe.forward", "merge.moe.prompts")
"""Where transformers may be imported, inside functions: what runs a tokenizer or a model."""


def modules() -> list[str]:
    paths = [path.relative_to(ROOT).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
    return [".".join(path.parts).removesuffix(".__init__") for path in paths if "templates" not in path.parts]


def path_of(module: str) -> Path:
    base = ROOT.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text())


def imports(module: str, *, only_top_level: bool = False) -> Iterator[str]:
    """Yields what a module imports when it runs: `hubmerge.x.y`, or the name of another package."""
    tree = tree_of(module)
    for node in tree.body if only_top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int | None:
    name = module.removeprefix("hubmerge.")
    for number, members in enumerate(LAYERS):
        if any(name == member or name.startswith(f"{member}.") for member in members):
            return number
    return None


@pytest.mark.parametrize("module", modules())
def test_module_has_a_layer_and_imports_only_from_those_above(module: str) -> None:
    if module in ("hubmerge", "hubmerge.weights", "hubmerge.merge", "hubmerge.merge.moe"):
        return
    own = layer(module)
    assert own is not None, f"{module} has no layer"
    for imported in imports(module):
        if imported.startswith("hubmerge.") and (theirs := layer(imported)) is not None:
            assert theirs <= own, f"{module} must not import {imported}"


def test_imports_have_no_cycle() -> None:
    names = set(modules())
    graph = {module: [name for name in imports(module, only_top_level=True) if name in names] for module in names}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join([*path, module])}"
        if module not in done:
            for imported in graph[module]:
                if imported != module:
                    visit(imported, (*path, module))
            done.add(module)

    for module in sorted(names):
        visit(module, ())


@pytest.mark.parametrize("module", modules())
def test_libraries_are_named_only_where_they_belong(module: str) -> None:
    name = module.removeprefix("hubmerge.")
    packages = {imported.split(".")[0] for imported in imports(module)}
    if name not in HUB_MODULES:
        assert "huggingface_hub" not in packages, f"{module} must not talk to the Hub"
    if not name.startswith("trainer."):
        assert not packages & {"trl", "peft", "bitsandbytes", "datasets"}, f"{module} must not need these"
        assert name in TRANSFORMERS_MODULES or "transformers" not in packages, f"{module} must not need transformers"
    heavy = {each.split(".")[0] for each in imports(module, only_top_level=True)}
    assert not heavy & {"trl", "peft", "bitsandbytes", "transformers"}, f"{module} must import these inside functions"
    assert not packages & {"httpx", "httpx2", "requests"}, f"{module} must go through huggingface_hub"


def test_localhub_knows_nothing_of_merges() -> None:
    for module in modules():
        if module.startswith("hubmerge.localhub"):
            foreign = [
                n for n in imports(module) if n.startswith("hubmerge.") and not n.startswith("hubmerge.localhub")
            ]
            assert {".".join(name.split(".")[:2]) for name in foreign} <= {"hubmerge.errors", "hubmerge.version"}


def test_only_the_command_line_prints() -> None:
    for module in modules():
        calls = (node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call))
        printed = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
        assert not printed or module.startswith("hubmerge.cli"), f"{module} prints"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("hubmerge.cli", ("torch", "huggingface_hub")), ("hubmerge.merge.pipeline", ("torch", "huggingface_hub"))],
)
def test_importing_a_module_leaves_out_what_is_heavy(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import {module}, sys; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", modules())
def test_module_imports(module: str) -> None:
    importlib.import_module(module)
