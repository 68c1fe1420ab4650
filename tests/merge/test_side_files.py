from __future__ import annotations

from pathlib import Path

from hubmerge.merge.planned import PlannedTokenizer
from hubmerge.merge.side_files import side_files
from hubmerge.weights.checkpoint import open_checkpoint
from hubmerge.weights.reference import parse_reference
from tests.checkpoints import write_llama

TAKEN = (
    "added_tokens.json",
    "additional_chat_templates/tool_use.jinja",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
LEFT = (
    "README.md",
    "LICENSE",
    "modeling_custom.py",
    "tokenization_custom.py",
    "training_args.bin",
    "trainer_state.json",
    "onnx/model.onnx",
)


def test_tokenizer_template_generation_and_processor_files_are_taken_and_nothing_else(tmp_path: Path) -> None:
    donor = write_llama(tmp_path / "donor", seed=0, tokenizer=False)
    for name in (*TAKEN, *LEFT):
        (donor / name).parent.mkdir(exist_ok=True)
        (donor / name).write_bytes(name.encode())
    files = side_files(PlannedTokenizer((0,)), 0, [open_checkpoint(parse_reference(str(donor)))])
    assert files == {name: name.encode() for name in TAKEN}
