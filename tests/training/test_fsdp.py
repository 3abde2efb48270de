"""Two processes that share a network: gradients and checkpoints are shards, no tensor is gathered to be saved, the curve is that of one device."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint import load as torch_load
from torch.distributed.tensor import DTensor

from gptshake import distributed, torchrun
from gptshake.distributed import Ranks
from gptshake.errors import CheckpointError, StorageError
from gptshake.record.run import steps_saved
from gptshake.training import checkpoint
from gptshake.training.checkpoint import Shards, first_row, folder_of, load, load_weights, newest, verify
from gptshake.training.evaluation import evaluate

HOW: dict[str, Any] = {"batch": 8, "micro": 2, "steps": 4, "interval": 2}
TEXT = torch.randint(11, (3, 3, 9), generator=torch.Generator().manual_seed(0))


def two_ranks(work: Callable[[Ranks], Any]) -> list[Any]:
    return several_ranks(work, 2)


def several_ranks(work: Callable[[Ranks], Any], size: int) -> list[Any]:
    """What processes that form a group make of ``work``; None of one that was killed."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])

    def run(rank: int, pipe: Any) -> None:
        os.environ |= dict(zip(torchrun.VARIABLES, (str(rank), str(rank), str(size), "127.0.0.1", port), strict=True))
        os.environ[distributed.DEVICE] = "cpu"
        try:
            pipe.send(work(distributed.join()))
        except BaseException:
            pipe.send(traceback.format_exc())
        distributed.leave(well=False)

    ends = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [context.Process(target=run, args=(rank, there)) for rank, (_, there) in enumerate(ends)]
    for process in processes:
        process.start()
    for _, there in ends:
        there.close()
    results: list[Any] = []
    for process, (here, _) in zip(processes, ends, strict=True):
        try:
            results.append(here.recv())
        except EOFError:
            results.append(None)
        process.join()
    return results


class Watched(pl.Callback):
    """What a rank has between micro-batches, and in which type a block's weights are used."""

    def __init__(self) -> None:
        self.gradients: list[float] = []
        self.types: set[str] = set()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        linear = pl_module.model.blocks[0].mlp.c_fc
        linear.register_forward_pre_hook(lambda module, inputs: self.types.add(str(module.weight.dtype)))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if pl_module.micro_batches:
            weights = list(pl_module.model.parameters())
            assert all(isinstance(weight.grad, DTensor) for weight in weights)
            self.gradients.append(sum(weight.grad.to_local().numel() for weight in weights) / sum(weight.numel() for weight in weights))


def shared(job: Any, precision: str) -> dict[str, Any]:
    """Train with a rank's job; its losses, what was watched, and the loss of an evaluation of all ranks."""
    watched = Watched()
    job.train([watched], precision)
    watched.types, in_training = set(), watched.types
    loss, _ = evaluate(job.model, list(TEXT), ranks=job.ranks)
    return {"rows": job.run.rows(), "loss": loss, "gradients": watched.gradients, "types": (in_training, watched.types)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fsdp")


@pytest.fixture(scope="module")
def alone(folder: Path, training_class: Any) -> Any:
    """The training on one device."""
    job = training_class(folder / "alone", **HOW)
    job.train()
    return job


@pytest.fixture(scope="module")
def alone_in_bf16(folder: Path, training_class: Any) -> Any:
    job = training_class(folder / "alone-bf16", precision="bf16-mixed", **HOW)
    job.train(precision="bf16-mixed")
    return job


@pytest.fixture(scope="module")
def both(folder: Path, training_class: Any) -> list[Any]:
    """The same on two ranks, in fp32 and in bf16; the record is rank 0's."""

    def work(ranks: Ranks) -> Any:
        return {
            precision: shared(training_class(folder / f"{precision}-{ranks.rank}", ranks=ranks, precision=precision, **HOW), precision)
            for precision in ("32-true", "bf16-mixed")
        }

    return two_ranks(work)


def losses(rows: list[dict[str, Any]]) -> list[float]:
    return [row["train/loss"] for row in rows]


def test_two_ranks_learn_what_one_device_learns(folder: Path, alone: Any, both: list[Any]) -> None:
    assert isinstance(both[0], dict), both[0]
    assert losses(both[0]["32-true"]["rows"]) == pytest.approx(losses(alone.run.rows()), abs=1e-6)
    saved = load_weights(folder_of(folder / "32-true-0", 4))
    for name, weight in alone.model.state_dict().items():
        torch.testing.assert_close(saved[name], weight, atol=1e-5, rtol=0)


def test_in_bf16_blocks_travel_in_bf16_and_are_validated_in_fp32(folder: Path, alone_in_bf16: Any, both: list[Any]) -> None:
    found = both[0]["bf16-mixed"]
    assert found["types"] == ({"torch.bfloat16"}, {"torch.float32"})
    assert losses(found["rows"]) == pytest.approx(losses(alone_in_bf16.run.rows()), abs=2e-3)
    alone_in_bf16.model.load_state_dict(load_weights(folder_of(folder / "bf16-mixed-0", 4)))
    assert found["loss"] == pytest.approx(evaluate(alone_in_bf16.model, list(TEXT))[0], abs=1e-6)
    assert both[0]["32-true"]["types"] == ({"torch.float32"}, {"torch.float32"})


class Branch(nn.Module):
    """Weights of which autocast casts some, used with and without a call of their module, and a list within an element of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.positions, self.scale = nn.Embedding(8, 8), nn.Parameter(torch.full((8,), 1.001))
        self.types: set[tuple[torch.dtype, ...]] = set()

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.types.add((self.positions.weight.dtype, self.scale.dtype, x.dtype))
        x = x + self.positions.weight[: x.shape[1]] * self.scale
        return x + sum(head(x) for head in self.heads) + self.attention(x, x, x, need_weights=False)[0]


def with_lists(model: Any) -> Branch:
    """Put what users' networks have in lists before the last norm."""
    torch.manual_seed(1)
    branch, last = Branch(), model.ln_f.forward
    model.lists = nn.ModuleList([nn.LayerNorm(8), nn.Identity(), nn.Dropout(0.0), nn.ModuleList([branch])])

    def forward(x: Tensor) -> Tensor:
        for part in model.lists[:3]:
            x = part(x)
        return last(branch(x))  # type: ignore[no-any-return]

    model.ln_f.forward = forward
    return branch


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_users_networks_are_sharded_as_they_compute_on_one_device(precision: str, tmp_path: Path, training_class: Any) -> None:
    def work(ranks: Ranks) -> Any:
        job = training_class(tmp_path / f"{ranks.size}-{ranks.rank}", ranks=ranks, precision=precision, **HOW)
        branch = with_lists(job.model)
        return losses(job.train(precision=precision)), branch.types, evaluate(job.model, list(TEXT), ranks=ranks)[0]

    alone = work(distributed.ALONE)
    for found in two_ranks(work):
        assert isinstance(found, tuple), found
        assert found[1] == {(torch.float32, torch.float32, torch.float32)}
        assert found[0] == pytest.approx(alone[0], abs=1e-6 if precision == "32-true" else 2e-3)
        assert found[2] == pytest.approx(alone[2], abs=1e-6 if precision == "32-true" else 2e-3)


def test_gradients_are_shards_between_micro_batches(both: list[Any]) -> None:
    for precision in ("32-true", "bf16-mixed"):
        shares = [rank[precision]["gradients"] for rank in both]
        assert len(shares[0]) == HOW["steps"]  # of two micro-batches each
        for one, other in zip(*shares, strict=True):
            assert one + other == 1 and 0.4 < one < 0.6


def test_each_rank_writes_its_rows_which_torch_reads_too(folder: Path, both: list[Any]) -> None:
    saved = folder_of(folder / "32-true-0", 4)
    names = {f"{kind}-shard-0000{number}-of-00002.safetensors" for kind in ("model", "state") for number in (1, 2)}
    assert {file.name for file in saved.iterdir()} == {*names, "state.json", "checksums.json"}
    assert json.loads((saved / "checksums.json").read_text()).keys() == {*names, "state.json"}
    for kind in ("model", "state"):
        sizes = [(saved / f"{kind}-shard-0000{number}-of-00002.safetensors").stat().st_size for number in (1, 2)]
        assert max(sizes) < 1.3 * min(sizes)
    whole = load(saved)
    state = whole["optimizer_states"][0]["state"]
    expected = {name.removeprefix("model."): weight for name, weight in whole["state_dict"].items()}
    expected |= {f"/optimizer_states/0/state/{n}/{key}": value for n, values in state.items() for key, value in values.items()}
    found = {name: torch.full_like(tensor, float("nan")) for name, tensor in expected.items()}
    torch_load(found, storage_reader=HuggingFaceStorageReader(str(saved)), no_dist=True)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_checkpoint_goes_on_on_the_same_and_on_other_numbers_of_ranks(
    folder: Path, alone: Any, both: list[Any], training_class: Any
) -> None:
    shards, whole = folder_of(folder / "32-true-0", 2), folder_of(folder / "alone", 2)

    def work(ranks: Ranks) -> None:
        for name, start in (("from-shards", shards), ("from-whole", whole)):
            training_class(folder / f"{name}-{ranks.rank}", ranks=ranks, **HOW).train(resume=start)

    assert two_ranks(work) == [None, None]
    one = training_class(folder / "from-shards-alone", **HOW)
    one.train(resume=shards)
    undisturbed = load(folder_of(folder / "32-true-0", 4))
    for name, atol in (("from-shards-0", 0.0), ("from-whole-0", 1e-5), ("from-shards-alone", 1e-5)):
        found = load(folder_of(folder / name, 4))
        for key in ("state_dict", "optimizer_states"):
            torch.testing.assert_close(found[key], undisturbed[key], atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("killed", "number", "words"),
    [(True, 0, ""), (False, 28, "The disk is full"), (False, 5, "cannot be accessed: Input/output error")],
)
def test_where_one_rank_cannot_write_the_checkpoint_before_stays(
    killed: bool, number: int, words: str, tmp_path: Path, training_class: Any
) -> None:
    def work(ranks: Ranks) -> str:
        def write(*_: Any, **__: Any) -> None:
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(number, os.strerror(number))

        class Breaks(pl.Callback):
            def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
                if pl_module.steps == 3 and ranks.rank == 1:
                    checkpoint.save_file = write

        job = training_class(tmp_path / str(ranks.rank), ranks=ranks, **HOW)
        try:
            job.fit(Breaks())
        except StorageError as error:
            return str(error)
        return "wrote"

    first, second = two_ranks(work)
    if killed:
        assert second is None and "RuntimeError" in first
    else:
        assert first == second and words in first
    assert steps_saved(tmp_path / "0") == [2]
    assert [file.name for file in (tmp_path / "0" / "checkpoints").iterdir()] == ["step-00000002"]
    verify(newest(tmp_path / "0")[0])


def test_rows_are_found_across_shards_of_which_some_are_empty() -> None:
    whole = torch.arange(10.0).view(5, 2)
    for n_shards in (1, 2, 3, 8):
        stored = Shards([whole[first_row(5, Ranks(rank, n_shards)) : first_row(5, Ranks(rank + 1, n_shards))] for rank in range(n_shards)])
        assert stored.shape == whole.shape and torch.equal(stored.whole(), whole)
        for begin, end in ((0, 5), (1, 4), (2, 2), (5, 5)):
            assert torch.equal(stored.rows(begin, end), whole[begin:end])


SHARDS = [f"{kind}-shard-00002-of-00002.safetensors" for kind in ("model", "state")]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(("damage", "words"), [(Path.unlink, "is not whole: {} is missing"), (cut, "is damaged: {} does not match")])
@pytest.mark.parametrize("name", SHARDS)
def test_a_damaged_shard_is_named_and_the_checkpoint_before_is_taken(
    damage: Callable[[Path], None], words: str, name: str, folder: Path, both: list[Any], tmp_path: Path
) -> None:
    shutil.copytree(folder / "32-true-0", tmp_path / "run")
    damage(folder_of(tmp_path / "run", 4) / name)
    with pytest.raises(CheckpointError, match=f"^The checkpoint step-00000004 {words.format(name)}"):
        load(folder_of(tmp_path / "run", 4))
    assert newest(tmp_path / "run")[0] == folder_of(tmp_path / "run", 2)


def swapped(saved: Path) -> None:
    one, other = (saved / f"model-shard-0000{number}-of-00002.safetensors" for number in (1, 2))
    one.rename(saved / "one")
    other.rename(one)
    (saved / "one").rename(other)


def without_last_rows(saved: Path) -> None:
    with safe_open(saved / SHARDS[0], "pt") as file:
        places = file.metadata()
    kept = {name: part[:-1] if name == "wte.weight" else part for name, part in load_file(saved / SHARDS[0]).items()}
    save_file(kept, saved / SHARDS[0], metadata=places)


def of_other_width(saved: Path) -> None:
    save_file({"wte.weight": torch.zeros(5, 9)}, saved / SHARDS[0])


def with_nonsense_for_places(saved: Path) -> None:
    save_file({"wte.weight": torch.zeros(5, 8)}, saved / SHARDS[0], metadata={"DCP_SHARDING_INFO": '{"wte.weight": 7}'})


@pytest.mark.parametrize("change", [swapped, without_last_rows, of_other_width, with_nonsense_for_places])
def test_shards_that_do_not_belong_together_are_refused_whatever_their_checksums(
    change: Callable[[Path], None], folder: Path, both: list[Any], tmp_path: Path
) -> None:
    saved = shutil.copytree(folder_of(folder / "32-true-0", 4), tmp_path / "saved")
    change(saved)
    sums = json.loads((saved / "checksums.json").read_text())
    (saved / "checksums.json").write_text(json.dumps({name: checkpoint.sha256(saved / name) for name in sums}))
    with pytest.raises(CheckpointError, match=r"^The checkpoint saved is none of gptshake's.*(do not fit together|not subscriptable)"):
        load(saved)


@pytest.mark.parametrize("on_ranks", [(0,), (0, 1)])
def test_a_callback_cannot_save_a_shard_on_one_rank_or_on_all(on_ranks: tuple[int, ...], tmp_path: Path, training_class: Any) -> None:
    class Keeps(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            self.kept = pl_module.model.wte.weight.detach().clone()

        def state_dict(self) -> dict[str, Any]:
            return {"kept": self.kept}

    def work(ranks: Ranks) -> Any:
        try:
            training_class(tmp_path / str(ranks.rank), ranks=ranks, **HOW).fit(*[Keeps()] * (ranks.rank in on_ranks))
        except CheckpointError as error:
            return str(error), error.is_shared
        return "trained"

    first, second = two_ranks(work)
    assert first == second and first[1] and first[0].startswith("The state of a callback cannot be saved (/callbacks/"), first
    assert not steps_saved(tmp_path / "0")


def test_twelve_ranks_of_which_some_have_no_rows_of_a_weight_learn_the_same(tmp_path: Path, training_class: Any) -> None:
    how = HOW | {"batch": 12, "micro": 1, "steps": 2}

    def work(ranks: Ranks) -> list[float]:
        return losses(training_class(tmp_path / str(ranks.rank), ranks=ranks, **how).fit())

    alone = training_class(tmp_path / "alone", **how)
    found = several_ranks(work, 12)
    assert found[0] == pytest.approx(losses(alone.fit()), abs=1e-6)
    for name, weight in load_weights(folder_of(tmp_path / "0", 2)).items():
        torch.testing.assert_close(weight, alone.model.state_dict()[name], atol=1e-5, rtol=0)
