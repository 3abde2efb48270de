"""Batches: nothing twice, nothing left out, and a resume that goes on where it stopped."""

import multiprocessing
import os
import pickle
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptshake.data import module
from gptshake.data.module import EvalBatches, TokenDataModule, TrainBatches
from gptshake.errors import ConfigError, DataError, GptshakeError

TOKENS = np.arange(1001, dtype=np.uint16)  # 125 blocks of 8


def take(batches: TrainBatches, n: int) -> torch.Tensor:
    return torch.stack(list(islice(batches, n)))


def test_an_epoch_reads_every_block_once() -> None:
    batches = take(TrainBatches(TOKENS, 8, 5, seed=0), 25).reshape(-1, 9)
    assert batches.dtype == torch.int64
    assert torch.equal(batches[:, 0].sort().values, torch.arange(0, 1000, 8))
    assert torch.equal(batches[:, 1:], batches[:, :-1] + 1)


def test_batches_run_on_across_the_epochs_end_all_of_one_size() -> None:
    batches = take(TrainBatches(TOKENS, 8, 7, seed=0), 125)  # seven epochs
    assert batches.shape == (125, 7, 9)
    assert batches[:, :, 0].unique(return_counts=True)[1].tolist() == [7] * 125


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 200), st.integers(0, 30))
def test_resume_repeats_no_block_and_misses_none(stop: int, ahead: int) -> None:
    whole = take(TrainBatches(TOKENS, 8, 3, seed=1), stop + 5)
    first = TrainBatches(TOKENS, 8, 3, seed=1)
    list(islice(first, stop))
    assert first.state_dict() == {"micro_batches": stop}
    second = TrainBatches(TOKENS, 8, 3, seed=1)
    list(islice(second, ahead))
    second.load_state_dict(first.state_dict())
    assert torch.equal(take(second, 5), whole[stop:])


def test_a_new_iterator_goes_on() -> None:
    whole = take(TrainBatches(TOKENS, 8, 3, seed=1), 6)
    batches = TrainBatches(TOKENS, 8, 3, seed=1)
    assert torch.equal(torch.cat([take(batches, 2), take(batches, 4)]), whole)


@pytest.mark.parametrize(("rows", "world_size"), [(12, 1), (3, 1), (1, 1), (4, 3), (2, 2), (1, 12)])
def test_a_step_reads_the_same_blocks_however_it_is_divided(rows: int, world_size: int) -> None:
    whole = take(TrainBatches(TOKENS, 8, 12, seed=3), 30)
    accumulation = 12 // (rows * world_size)
    ranks = [take(TrainBatches(TOKENS, 8, rows, 3, rank, world_size), 30 * accumulation) for rank in range(world_size)]
    divided = torch.stack(ranks, dim=1)  # (micro-batch, rank, row, column)
    assert torch.equal(divided.reshape(30, 12, 9), whole)


@pytest.mark.parametrize("random_offset", [False, True])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_batches_and_resumes_exactly(workers: int, random_offset: bool) -> None:
    def batches(workers: int) -> TrainBatches:
        return TrainBatches(TOKENS, 8, 3, 1, random_offset=random_offset, workers=workers)

    whole = take(batches(0), 140)
    first = batches(workers)
    assert torch.equal(take(first, 70), whole[:70])
    assert first.state_dict() == {"micro_batches": 70}  # not what the workers have fetched ahead
    second = batches(workers)
    running = iter(second)
    next(running)
    second.load_state_dict(first.state_dict())
    assert torch.equal(torch.stack(list(islice(running, 70))), whole[70:])


@pytest.mark.parametrize("random_offset", [False, True])
def test_ranks_divide_an_epoch_whatever_its_cuts(random_offset: bool) -> None:
    whole = take(TrainBatches(TOKENS, 8, 12, seed=3, random_offset=random_offset), 30)
    ranks = [take(TrainBatches(TOKENS, 8, 4, 3, rank, 3, random_offset=random_offset), 30) for rank in range(3)]
    assert torch.equal(torch.stack(ranks, dim=1).reshape(30, 12, 9), whole)


def test_a_worker_that_is_killed_is_a_sentence() -> None:
    others = multiprocessing.active_children()
    batches = iter(TrainBatches(TOKENS, 8, 3, 1, workers=2))
    next(batches)
    victim, _ = (process for process in multiprocessing.active_children() if process not in others)
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    with pytest.raises(GptshakeError, match=r"One of the processes of data\.workers=2 ended early"):
        for _ in range(20):
            next(batches)


def test_a_worker_leaves_signals_to_its_caller() -> None:
    others = multiprocessing.active_children()
    batches = iter(TrainBatches(TOKENS, 8, 3, 1, workers=1))
    first = next(batches)
    (worker,) = (process for process in multiprocessing.active_children() if process not in others)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        os.kill(worker.pid or 0, number)
    rest = list(islice(batches, 20))
    assert torch.equal(torch.stack([first, *rest]), take(TrainBatches(TOKENS, 8, 3, 1), 21))
    del batches
    worker.join(10)
    assert not worker.is_alive()


@settings(deadline=None)
@given(st.integers(2, 300), st.integers(1, 40), st.integers(1, 9))
def test_evaluation_scores_every_token_but_the_first_once(n_tokens: int, block_size: int, rows: int) -> None:
    batches = EvalBatches(np.arange(n_tokens, dtype=np.uint32), block_size, rows)
    read = list(batches)
    assert len(read) == len(batches) == len(list(batches))
    assert torch.cat([batch[:, 1:].reshape(-1) for batch in read]).tolist() == list(range(1, n_tokens))
    assert all(torch.equal(batch[:, 1:], batch[:, :-1] + 1) and len(batch) <= rows for batch in read)


@pytest.fixture
def store(opener: Any, memory: Any) -> Any:
    return opener(memory({"book": "".join(chr(32 + number * 7 % 90) for number in range(3000))}), test_fraction=0.1)


def test_the_module_serves_the_stores_splits(store: Any) -> None:
    module = TokenDataModule(store, block_size=16, batch_size=8, micro_batch_size=4, seed=0)
    first = next(iter(module.train_dataloader()))
    assert module.n_blocks == (store.train.n_tokens - 1) // 16
    assert first.shape == (4, 17)
    for i in range(4):
        assert module.sample_block(i).tolist() == first[i].tolist()
    for loader, split in ((module.val_dataloader(), store.val), (module.test_dataloader(), store.test)):
        assert sum(batch[:, 1:].numel() for batch in loader) == split.n_tokens - 1


def test_a_batch_that_cannot_be_divided_is_a_sentence(store: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size=10 .* multiple of 8"):
        TokenDataModule(store, block_size=16, batch_size=10, micro_batch_size=4, seed=0, world_size=2)


def test_a_text_shorter_than_a_block_is_a_sentence(store: Any) -> None:
    with pytest.raises(DataError, match="are missing"):
        TokenDataModule(store, block_size=5000, batch_size=4, micro_batch_size=4, seed=0)


def test_a_store_without_a_test_split_says_so(opener: Any, memory: Any) -> None:
    module = TokenDataModule(opener(memory({"a": "ab" * 500})), block_size=8, batch_size=4, micro_batch_size=4, seed=0)
    with pytest.raises(ConfigError, match=r"data\.test_fraction"):
        module.test_dataloader()


def test_workers_of_a_process_that_uses_a_gpu_are_not_forked_and_open_the_file_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TOKENS.tofile(tmp_path / "train.bin")
    tokens = np.memmap(tmp_path / "train.bin", TOKENS.dtype, "r", shape=TOKENS.shape)
    used: list[str] = []
    loader = module.DataLoader

    def seen(*arguments: Any, **options: Any) -> Any:
        used.append(options["multiprocessing_context"])
        return loader(*arguments, **options)

    monkeypatch.setattr(module, "DataLoader", seen)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    batches = TrainBatches(tokens, 8, 3, 1)
    sent = pickle.dumps(batches)
    assert len(sent) < 2000
    assert torch.equal(pickle.loads(sent)[5], batches[5])
    apart = [batch for _, batch in zip(range(4), TrainBatches(tokens, 8, 3, 1, workers=1), strict=False)]
    assert used == ["forkserver"]
    assert all(torch.equal(ours, batches[number]) for number, ours in enumerate(apart))
