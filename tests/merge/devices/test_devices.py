"""Which devices there are, how their seats are taken, and the blocks that they compute."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from click.testing import CliRunner

from hubmerge.cli import main
from hubmerge.errors import LimitError
from hubmerge.merge.devices import SEATS, CudaCard, Seats, card_blocks, chosen, device_arguments, find_cards
from hubmerge.merge.limits import explained_limits
from hubmerge.merge.methods.method import BLOCK_ELEMENTS, blocks_of
from tests.merge.devices.cards import HostCard

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")


def test_the_processor_is_no_card() -> None:
    assert find_cards("cpu") == ()


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "mps", "CUDA", "", "cuda:0,1"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(LimitError) as error:
        find_cards(name)
    assert str(error.value) == f"unknown device {name}"
    assert error.value.hint == "Write cpu, cuda for every visible CUDA device, or cuda:0."


@without_cuda
def test_a_machine_without_cuda_says_so_before_it_reads_anything() -> None:
    result = CliRunner().invoke(main, ["merge", "no-such-recipe.yml", "out", "--device", "cuda"])
    assert result.exit_code == 1
    assert "no CUDA device can be used here: there is none, or torch was installed without CUDA" in result.output


def test_devices_are_chosen_by_number() -> None:
    assert list(chosen("cuda", 3)) == [0, 1, 2]
    assert list(chosen("cuda:1", 3)) == [1]
    with pytest.raises(LimitError) as error:
        chosen("cuda:2", 2)
    assert str(error.value) == "there is no cuda:2 here, but cuda:0, cuda:1"


def test_a_card_has_the_name_that_torch_gives_it() -> None:
    assert CudaCard(1).device == torch.device("cuda:1")


def test_the_number_of_a_card_is_not_part_of_the_command_that_makes_the_merge_again() -> None:
    assert [device_arguments(name) for name in ("cpu", "cuda", "cuda:1")] == [(), *[("--device", "cuda")] * 2]


@pytest.mark.parametrize("shape", [(0, 4), (1,), (300_000,), (1_025, 333), (3, 500_000), (9_000, 512)], ids=str)
@pytest.mark.parametrize("elements", [1, BLOCK_ELEMENTS, 1 << 20])
def test_blocks_of_a_card_are_joined_blocks_of_the_host(shape: tuple[int, ...], elements: int) -> None:
    joined = list(card_blocks(shape, elements))
    assert [part for _, parts in joined for part in parts] == list(blocks_of(shape))
    for whole, parts in joined:
        assert (whole.start, whole.stop) == (parts[0].start, parts[-1].stop)
        assert len(parts) == 1 or whole.elements <= elements


def test_no_thread_has_to_wait_for_a_seat() -> None:
    assert Seats(()).workers(16) == 16
    assert Seats([HostCard(), HostCard()]).workers(16) == 2 * SEATS
    assert Seats([HostCard()]).workers(1) == 1


def test_threads_at_work_sit_at_different_cards() -> None:
    cards = [HostCard(), HostCard()]
    seats, all_sit = Seats(cards), threading.Barrier(4, timeout=10)

    def work(_number: int) -> None:
        with seats.one():
            all_sit.wait()

    with ThreadPoolExecutor(4) as workers:
        list(workers.map(work, range(4)))
    assert [len(card.used_by) for card in cards] == [2, 2]


def test_a_seat_is_given_back_by_whoever_fails() -> None:
    card = HostCard()
    seats = Seats([card])
    for _ in range(SEATS + 1):
        with pytest.raises(RuntimeError), seats.one():
            raise RuntimeError
    assert len(card.used_by) == SEATS + 1


def test_without_cards_there_is_none() -> None:
    with Seats(()).one() as card:
        assert card is None


def test_a_card_without_memory_is_a_sentence() -> None:
    with pytest.raises(LimitError, match=r"^the CUDA device has not enough memory$"), explained_limits():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
