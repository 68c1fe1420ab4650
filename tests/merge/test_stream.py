from __future__ import annotations

import _thread
import gc
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from hubmerge.errors import MergeError
from hubmerge.merge.methods.method import BLOCK_ELEMENTS
from hubmerge.merge.pipeline import merge_to_folder, open_merge
from hubmerge.merge.progress import Silent, Stage
from hubmerge.merge.stream import StreamOptions, open_stream
from tests.checkpoints import write_tensors
from tests.merge.recipes import whole

Llamas = tuple[Path, Path, Path]


@dataclass
class Sink:
    """A shard's file that takes its time and notes who writes to it when it must no longer be written to."""

    seconds: float = 0.0
    is_closed: bool = False
    late: list[int] = field(default_factory=list)

    def write(self, offset: int, buffer: memoryview) -> None:
        time.sleep(self.seconds)
        if self.is_closed:
            self.late.append(offset)


@dataclass
class Counting(Silent):
    """Adds up what is reported."""

    sizes: Counter[Stage] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, stage: Stage, size_bytes: int) -> None:
        with self.lock:
            self.sizes[stage] += size_bytes


@dataclass
class Interrupting(Silent):
    """Ctrl-C, once, as soon as something was merged."""

    once: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, stage: Stage, size_bytes: int) -> None:
        if stage is Stage.MERGE and self.once.acquire(blocking=False):
            _thread.interrupt_main()


def many_tensors(folder: Path, *, steps: int = 0) -> Path:
    tensors = {f"w{number:03}": torch.ones(64) for number in range(200)}
    return write_tensors(folder, {**tensors, "aaa.steps": torch.full((3,), steps)})


def test_what_is_read_merged_and_staged_adds_up(tmp_path: Path, llamas: Llamas) -> None:
    recipe = whole("slerp", llamas[0], llamas[1], base_model=llamas[0], parameters={"t": 0.5})
    counting = Counting()
    merge_to_folder(recipe, tmp_path / "out", progress=counting)
    with open_merge(recipe) as merge:
        tensor_bytes = sum(tensor.info.size_bytes for tensor in merge.plan.tensors)
        assert counting.sizes[Stage.READ] == merge.plan.read_bytes
        assert counting.sizes[Stage.MERGE] == tensor_bytes
        assert counting.sizes[Stage.STAGE] == merge.plan.write_bytes


def test_a_failing_tensor_ends_the_others_before_the_file_is_given_back(tmp_path: Path) -> None:
    models = [many_tensors(tmp_path / str(steps), steps=steps) for steps in (1, 2)]
    sink = Sink(seconds=0.001)
    with open_merge(whole("linear", *[(model, {"weight": 1}) for model in models])) as merge:
        files = [checkpoint.files for checkpoint in merge.checkpoints]
        with open_stream(merge.plan.shards, files, options=StreamOptions(threads=4), progress=Silent()) as stream:
            with pytest.raises(MergeError, match=r"^aaa\.steps: the parents hold different values"):
                stream.fill(merge.plan.shards[0], sink)
            sink.is_closed = True
            time.sleep(0.02)
    assert sink.late == []


@pytest.fixture
def _heeded_interrupts() -> Iterator[None]:
    """As at a terminal: a shell has its background jobs ignore Ctrl-C.

    And without the garbage collector, in whose callbacks (hypothesis has one) Python swallows an interrupt.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeded_interrupts")
def test_ctrl_c_ends_the_workers_before_the_file_is_given_back(tmp_path: Path) -> None:
    sink = Sink(seconds=0.001)
    with open_merge(whole("passthrough", many_tensors(tmp_path / "model"))) as merge:
        files = [checkpoint.files for checkpoint in merge.checkpoints]
        with open_stream(merge.plan.shards, files, options=StreamOptions(threads=2), progress=Interrupting()) as stream:
            with pytest.raises(KeyboardInterrupt):
                stream.fill(merge.plan.shards[0], sink)
            sink.is_closed = True
            time.sleep(0.02)
    assert sink.late == []


def test_a_tensor_in_work_is_not_finished_once_the_stream_stops(tmp_path: Path) -> None:
    models = [write_tensors(tmp_path / str(seed), {"w": torch.randn(64, BLOCK_ELEMENTS)}) for seed in (1, 2)]
    counting = Counting()
    with (
        open_merge(whole("linear", *[(model, {"weight": 1}) for model in models])) as merge,
        open_stream(
            merge.plan.shards, [c.files for c in merge.checkpoints], options=StreamOptions(threads=1), progress=counting
        ) as stream,
        ThreadPoolExecutor(1) as caller,
    ):
        task = caller.submit(stream.fill, merge.plan.shards[0], Sink(seconds=0.01))
        while not counting.sizes[Stage.MERGE]:
            time.sleep(0.001)
        stream.stop()
        with pytest.raises(CancelledError):
            task.result(timeout=5)
    assert counting.sizes[Stage.MERGE] < 64 * BLOCK_ELEMENTS * 4


def test_no_thread_is_left_behind(tmp_path: Path, llamas: Llamas) -> None:
    merge_to_folder(whole("passthrough", llamas[0]), tmp_path / "out")
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("hubmerge")] == []
