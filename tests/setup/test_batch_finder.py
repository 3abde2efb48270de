"""What a child that tried a size has to say, and what becomes of it: memory that ran out, other faults, kept results."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from gptshake import hardware
from gptshake.errors import ConfigError, GptshakeError
from gptshake.estimate.batch_size import Tried
from gptshake.estimate.budget import Budget
from gptshake.estimate.forecast import Speed
from gptshake.model.config import GPTConfig
from gptshake.processes import ChildRunner, Outcome, Spec
from gptshake.setup import batch_finder as fit
from gptshake.setup.batch_finder import Fitter
from gptshake.training.probe import BASE_BYTES, within

SHAPE = GPTConfig(1, 1, 32, 16)
BUDGET = Budget(8, 1, 8, 16, 10, 128, 1280, 1.0, "max_steps", ())
MIB = 1 << 20


def speed_of(size: int) -> dict[str, Any]:
    """A pass that costs the same whatever its size, and a MiB for each sequence."""
    return asdict(Speed(0.01, 0.001, 0.0, 0.0, base_bytes=100 * MIB, held_bytes=size * MIB))


@pytest.fixture
def cfg() -> Any:
    cfg = {"model": {"n_embd": 32}, "optimizer": {"_target_": "some.optimizer"}, "data": {"micro_batch_size": "auto"}}
    return OmegaConf.create(cfg | {"trainer": {"accelerator": "cpu", "precision": "32-true", "threads": 1}, "paths": {"cache": "unused"}})


@pytest.fixture
def fitter(tmp_path: Path) -> Callable[..., Fitter]:
    """One whose children answer what is given here."""
    store: Any = SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=30))

    def make(answer: Callable[[int], Outcome]) -> Fitter:
        return Fitter(store, lambda task, threads, until: answer(task[1].micro_batch_size), tmp_path / "fits" / "x.json")

    return make


def search(ours: Fitter, cfg: Any, limit: int = 1 << 40, **options: Any) -> list[Tried]:
    tried: list[Tried] = []
    ours.search(cfg, SHAPE, BUDGET, limit, tried=tried, **({"saturates": False, "most": 8} | options))
    return tried


def test_a_child_that_the_kernel_killed_or_that_ran_out_of_memory_is_a_size_that_does_not_fit(cfg: Any, fitter: Any) -> None:
    ends = {4: Outcome("killed", reason="killed by SIGKILL (out of memory?)"), 3: Outcome("ok", "memory ran out")}
    tried = search(fitter(lambda size: ends.get(size, Outcome("ok", speed_of(size)))), cfg)
    assert [(row.size, row.fits, row.why) for row in tried] == [
        (1, True, ""),
        (2, True, ""),
        (4, False, "killed by SIGKILL (out of memory?)"),
        (3, False, "memory ran out"),
    ]


def test_a_child_that_held_more_than_the_limit_does_not_fit(cfg: Any, fitter: Any) -> None:
    ours = fitter(lambda size: Outcome("ok", speed_of(size)))
    limit = (search(ours, cfg)[2].peak or 0) + 1
    tried = search(ours, cfg, limit)
    assert [row.size for row in tried if row.fits] == [1, 2, 4] and all((row.peak or 0) > limit for row in tried if not row.fits)


def test_not_even_one_sequence_gets_a_sentence_that_says_what_to_change(cfg: Any, fitter: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"Not even one sequence of 16 tokens fits into 2 MiB .* smaller model.*model.block_size than 16, trainer.prec"
    ):
        search(fitter(lambda size: Outcome("ok", "memory ran out")), cfg, 2 * MIB)


def test_another_fault_is_told_and_never_taken_for_a_lack_of_memory(cfg: Any, fitter: Any) -> None:
    with pytest.raises(GptshakeError, match="2 sequences could not be tried: TypeError: odd"):
        search(fitter(lambda size: Outcome("ok", speed_of(size)) if size < 2 else Outcome("failed", reason="TypeError: odd")), cfg)


def test_when_time_is_up_what_is_known_counts(cfg: Any, fitter: Any) -> None:
    tried = search(fitter(lambda size: Outcome("ok", speed_of(size)) if size < 4 else Outcome("timeout")), cfg)
    assert [row.size for row in tried] == [1, 2]


def test_what_was_found_is_kept_and_a_damaged_file_is_measured_anew(cfg: Any, fitter: Any) -> None:
    ours = fitter(lambda size: Outcome("ok", speed_of(size)))
    assert ours.kept() == []
    tried = search(ours, cfg)
    ours.keep(tried)
    assert ours.kept() == tried
    ours.file.write_text(ours.file.read_text()[:40])
    assert ours.kept() == []


@pytest.fixture
def auto(cfg: Any, fitter: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], Outcome]], tuple[int, str]]:
    """What ``auto`` means where the processor plays the GPU."""
    monkeypatch.setattr(fit, "AUTO_DEVICES", ("cpu",))
    return lambda answer: fit._auto(fitter(answer), float("inf"), cfg, SHAPE, BUDGET)


def test_auto_on_a_gpu_is_measured_once(auto: Any) -> None:
    asked: list[int] = []

    def answer(size: int) -> Outcome:
        asked.append(size)
        return Outcome("ok", speed_of(size))

    size, said = auto(answer)
    assert (size, asked) == (8, [1, 2, 4, 8]) and "8 of up to 8 sequences are the fastest on this GPU, measured in" in said
    size, said = auto(answer)
    assert (size, asked) == (8, [1, 2, 4, 8]) and "measured before" in said


def test_auto_says_why_it_fell_back_on_the_formula(auto: Any) -> None:
    size, said = auto(lambda size: Outcome("failed", reason="CUDA error"))
    assert size == BUDGET.micro_batch_size and "CUDA error" in said and "formula" in said
    assert "60 s were not enough" in auto(lambda size: Outcome("timeout"))[1]


def test_auto_is_left_alone_without_a_gpu_or_with_a_number(cfg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def stub(cfg: Any, store: Any) -> Iterator[str]:
        yield "a fitter"

    monkeypatch.setattr(fit, "fitter", stub)

    def measures() -> bool:
        with fit.auto_fit(cfg, None) as found:  # type: ignore[arg-type]
            return found is not None

    monkeypatch.setattr(hardware, "gpus", list)
    cfg.trainer.accelerator = "auto"
    assert not measures()
    monkeypatch.setattr(hardware, "gpus", lambda: [{"name": "Imagined", "memory_gb": 24.0}])
    assert measures()
    cfg.data.micro_batch_size = 4
    assert not measures()
    cfg.data.micro_batch_size, cfg.trainer.accelerator = "auto", "cpu"
    assert not measures()


def test_what_is_kept_is_of_one_shape_device_and_precision(cfg: Any, fitter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fitter(lambda size: Outcome("ok")).store
    monkeypatch.setattr(hardware, "gpus", lambda: [{"name": "A", "memory_gb": 24.0}, {"name": "B", "memory_gb": 80.0}])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    names = {fit._fingerprint(cfg, store)}
    cfg.optimizer.lr = 0.1  # neither speed nor memory
    assert names == {fit._fingerprint(cfg, store)}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    names.add(fit._fingerprint(cfg, store))
    cfg.trainer.precision = "bf16-mixed"
    names.add(fit._fingerprint(cfg, store))
    cfg.trainer.compile = True
    names.add(fit._fingerprint(cfg, store))
    cfg.model.n_embd = 64
    names.add(fit._fingerprint(cfg, store))
    store.tokenizer.vocab_size = 31
    assert len(names | {fit._fingerprint(cfg, store)}) == 6


def in_child(deed: str) -> Any:
    """Work under a limit of 64 MiB over what a training begins with."""

    def work() -> Any:
        if deed == "take much":
            return torch.ones(1 << 30)
        if deed == "stay small":
            return str(torch.ones(1 << 20).numel())
        if deed == "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError({"fail on cuda": "CUDA out of memory. Tried", "fail oddly": "shapes do not match"}[deed])

    return within(BASE_BYTES + 64 * MIB if deed != "have no room" else BASE_BYTES // 2, "cpu", work)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux keeps the limit of main memory")
def test_a_child_cannot_take_more_than_its_limit_and_says_so(tmp_path: Path) -> None:
    server = ChildRunner(in_child, method="fork")
    try:

        def end(deed: str) -> Outcome:
            child = server.start(Spec(deed, tmp_path))
            server.wait([child], 30.0)
            assert child.outcome is not None
            return child.outcome

        assert end("take much").value == end("fail on cuda").value == "memory ran out"
        assert end("stay small").value == str(1 << 20)
        assert end("have no room").value.startswith("the process alone takes")
        assert end("fail oddly").status == "failed" and end("be killed").status == "killed"
    finally:
        server.close(grace=1.0)
