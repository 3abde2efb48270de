"""What a child that tried a size has to say, and what becomes of it: memory that ran out, other faults, kept results."""

import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from gptshake import hardware
from gptshake.config.compose import compose
from gptshake.errors import ConfigError, GptshakeError
from gptshake.estimate.batch_size import Tried
from gptshake.estimate.budget import Budget
from gptshake.estimate.forecast import Speed
from gptshake.model.config import GPTConfig
from gptshake.outcome import Outcome
from gptshake.processes import ChildRunner, Spec
from gptshake.setup import batch_finder as fit
from gptshake.setup import costs, resolve
from gptshake.training.probe import BASE_BYTES, within

SHAPE = GPTConfig(1, 1, 32, 16)
BUDGET = Budget(8, 1, 8, 16, 10, 128, 1280, 1.0, "max_steps", ())
MIB = 1 << 20


def speed_of(size: int) -> dict[str, Any]:
    """A pass that costs the same whatever its size, and a MiB for each sequence."""
    return asdict(Speed(0.01, 0.001, 0.0, 0.0, base_bytes=100 * MIB, held_bytes=size * MIB))


@pytest.fixture
def cfg(tmp_path: Path) -> Any:
    cfg = {"model": {"block_size": 16}, "optimizer": {"_target_": "some.optimizer"}, "data": {"micro_batch_size": "auto"}}
    trainer = {"accelerator": "cpu", "precision": "32-true", "threads": 1}
    return OmegaConf.create(cfg | {"trainer": trainer, "paths": {"cache": str(tmp_path)}})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(fit, "model_costs", lambda cfg, vocab_size: SHAPE)
    return SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=30))


@pytest.fixture
def search(cfg: Any, store: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Tried]]:
    """A search whose children answer what is given here."""

    def search(answer: Callable[[int], Outcome], limit: int = 1 << 40) -> list[Tried]:
        monkeypatch.setattr(fit, "run_in_child", lambda work, task, threads, seconds: answer(task[2].micro_batch_size))
        finder = fit.BatchFinder(cfg, store, BUDGET, limit)
        finder.search(saturates=False, most=8)
        return finder.tried

    return search


def test_a_child_that_the_kernel_killed_or_that_ran_out_of_memory_is_a_size_that_does_not_fit(search: Any) -> None:
    ends = {4: Outcome("killed", reason="killed by SIGKILL (out of memory?)"), 3: Outcome("ok", "memory ran out")}
    tried = search(lambda size: ends.get(size, Outcome("ok", speed_of(size))))
    assert [(row.size, row.fits, row.why) for row in tried] == [
        (1, True, ""),
        (2, True, ""),
        (4, False, "killed by SIGKILL (out of memory?)"),
        (3, False, "memory ran out"),
    ]


def test_a_child_that_held_more_than_the_limit_does_not_fit(search: Any) -> None:
    def answer(size: int) -> Outcome:
        return Outcome("ok", speed_of(size))

    limit = (search(answer)[2].peak or 0) + 1
    tried = search(answer, limit)
    assert [row.size for row in tried if row.fits] == [1, 2, 4] and all((row.peak or 0) > limit for row in tried if not row.fits)


def test_not_even_one_sequence_gets_a_sentence_that_says_what_to_change(search: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"Not even one sequence of 16 tokens fits into 2 MiB .* smaller model.*model.block_size than 16, trainer.prec"
    ):
        search(lambda size: Outcome("ok", "memory ran out"), 2 * MIB)


def test_another_fault_is_told_and_never_taken_for_a_lack_of_memory(search: Any) -> None:
    with pytest.raises(GptshakeError, match="2 sequences could not be tried: TypeError: odd"):
        search(lambda size: Outcome("ok", speed_of(size)) if size < 2 else Outcome("failed", reason="TypeError: odd"))


def test_when_time_is_up_what_is_known_counts(search: Any) -> None:
    tried = search(lambda size: Outcome("ok", speed_of(size)) if size < 4 else Outcome("timeout"))
    assert [row.size for row in tried] == [1, 2]


def test_what_was_found_is_cached_and_a_damaged_file_is_measured_anew(cfg: Any, store: Any, search: Any, tmp_path: Path) -> None:
    assert fit.read_cached(cfg, store) == []
    tried = search(lambda size: Outcome("ok", speed_of(size)))
    fit.cache(cfg, store, tried)
    assert fit.read_cached(cfg, store) == tried
    (file,) = tmp_path.glob("fits/*.json")
    file.write_text(file.read_text()[:40])
    assert fit.read_cached(cfg, store) == []


@pytest.fixture
def auto(cfg: Any, store: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], Outcome]], tuple[int, str]]:
    """What ``auto`` means where the processor plays the GPU."""

    def auto(answer: Callable[[int], Outcome]) -> tuple[int, str]:
        monkeypatch.setattr(fit, "run_in_child", lambda work, task, threads, seconds: answer(task[2].micro_batch_size))
        return fit.automatic(cfg, store, BUDGET)

    return auto


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


@pytest.mark.parametrize(
    ("words", "measured"), [(("trainer=gpu",), True), (("trainer=gpu", "data.micro_batch_size=4"), False), ((), False)]
)
def test_auto_is_measured_on_a_gpu_and_left_alone_otherwise(
    words: tuple[str, ...], measured: bool, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(hardware, "device_memory", lambda device: 24 << 30)
    monkeypatch.setattr(fit, "automatic", lambda cfg, store, budget: (1, "measured"))
    shape = ("model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16", "trainer.precision=32-true")
    cfg = compose(["model=tiny", *shape, "data=text_char", f"data.path={book}", f"paths.cache={tmp_path}", "trainer=cpu", *words])
    assert ("measured" in resolve.resolve(cfg, resolve.token_store(cfg, [])).notes) == measured


def test_what_is_cached_is_of_one_shape_device_and_precision(cfg: Any, store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def files() -> int:
        fit.cache(cfg, store, [])
        return len(list(tmp_path.glob("fits/*.json")))

    monkeypatch.setattr(hardware, "gpus", lambda: [{"name": "A", "memory_gb": 24.0}, {"name": "B", "memory_gb": 80.0}])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert files() == 1
    cfg.optimizer.lr = 0.1  # neither speed nor memory
    assert files() == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert files() == 2
    for number, (key, value) in enumerate((("trainer.precision", "bf16-mixed"), ("trainer.compile", True), ("model.n_embd", 64)), 3):
        OmegaConf.update(cfg, key, value)
        assert files() == number
    store.tokenizer.vocab_size = 31
    assert files() == 6


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


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("ValueError: Muon only supports 2D parameters", ""),
        (
            "killed by SIGKILL (out of memory?)",
            f" Try a smaller data.micro_batch_size than {BUDGET.micro_batch_size}, a smaller model or model.block_size.",
        ),
    ],
)
def test_only_a_trial_step_that_ran_out_of_memory_is_told_to_be_smaller(monkeypatch: pytest.MonkeyPatch, reason: str, advice: str) -> None:
    monkeypatch.setattr(costs, "step_fits", lambda *_: True)
    monkeypatch.setattr(costs, "run_in_child", lambda *_: Outcome("failed", reason=reason))
    cfg: Any = SimpleNamespace(trainer=SimpleNamespace(threads=1))
    with pytest.raises(GptshakeError) as error:
        costs.speed_in_child(cfg, cfg, BUDGET)
    assert str(error.value) == f"The speed could not be measured: {reason}.{advice}"
