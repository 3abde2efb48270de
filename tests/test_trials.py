"""What a study looks at before its first trial: every point, with the text and the machine that its trial will have."""

from pathlib import Path
from typing import Any

import pytest

from gptshake import trials
from gptshake.config.compose_errors import checked_compose
from gptshake.errors import UserError
from gptshake.estimate.forecast import Speed
from gptshake.record.git import Code
from gptshake.setup import costs, resolve
from gptshake.trials import Trials

SMALL = (
    *("model=tiny", "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16", "data=text_char", "data.batch_size=8"),
    *("data.test_fraction=0", "trainer=cpu", "trainer.threads=1", "trainer.max_steps=20", "callbacks=none", "logger=none"),
)


@pytest.fixture
def prepare(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The preparation of a study over these axes and listed points; no speed is measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(costs, "speed_here", lambda *_: Speed(1e-3, 1e-3, 1e-3, 1e-3))

    def call(*swept: str, fixed: tuple[str, ...] = (), listed: tuple[list[str], ...] = ()) -> dict[str, Any]:
        host = Trials("tiny-text", "book", {}, Code(), {}, {}, True)
        full = checked_compose([*SMALL, f"data.path={book}", *fixed], with_hydra=True)
        return host.prepare(full, list(swept), list(listed))

    return call


@pytest.mark.parametrize(
    ("swept", "part"),
    [
        (("scheduler.warmup=0.1,5e9",), "scheduler.warmup=5000000000.0 does not fit a run of 2,560 tokens"),
        (("scheduler=wsd,cosine", "scheduler.warmup=0.1,5e9"), "scheduler.warmup=5000000000.0 does not fit"),
        (("data.batch_size=8,16", "scheduler.warmup=0.1,2500"), "scheduler.warmup takes 97.7 % of the run"),  # of equal tokens
        (("model.block_size=16,100000",), "one block of 100,000 needs 100,001"),
        (("model.block_size=tag(log,powers_of_two,int(interval(16,131072)))",), "one block of 131,072 needs 131,073"),
        (("data.val_fraction=0.05,0.9999",), "data.val_fraction=0.9999: The "),
        (("data.batch_size=8,300000000",), "300,000,000 sequences is 4,800,000,000 tokens per step"),
        (("model.n_embd=16,24000", "seed=1,2"), "model.n_embd=24000 seed=1: This run needs about"),
        (("optimizer=adamw,sgd", "model.block_size=16,100000"), "one block of 100,000"),
    ],
)
def test_a_value_that_the_text_or_the_machine_rules_out_is_refused_before_the_first_trial(
    prepare: Any, monkeypatch: pytest.MonkeyPatch, swept: tuple[str, ...], part: str
) -> None:
    monkeypatch.setattr(costs, "available_memory", lambda cfg: 4_000_000_000)
    with pytest.raises(UserError) as error:
        prepare(*swept)
    assert part in str(error.value)


def test_a_range_of_adamws_lies_around_the_value_of_another_optimizer_which_must_not_be_zero(prepare: Any) -> None:
    decay = "optimizer.weight_decay=choice(range)"
    assert prepare(decay)["ranges"] == {}
    found = prepare(decay, fixed=("optimizer=sgd", "optimizer.weight_decay=3e-4"))["ranges"]
    assert found["optimizer.weight_decay"] == "tag(log,interval(1e-06,0.09))"
    with pytest.raises(UserError, match=r"optimizer\.weight_decay=range is for AdamW.*which is 0: write a range"):
        prepare(decay, fixed=("optimizer=sgd",))
    assert [*prepare("optimizer.lr=choice(range)", fixed=("optimizer=sgd",))["ranges"]] == ["optimizer.lr"]


def test_listed_points_are_looked_at_too(prepare: Any) -> None:
    with pytest.raises(UserError, match="one block of 100,000"):
        prepare("model.block_size=16,32", listed=(["model.block_size=100000"],))


def test_points_are_held_against_the_length_that_their_trials_have(prepare: Any) -> None:
    """500 tokens are longer than 20 steps of one sequence, but not than the 2,560 tokens that every batch gets."""
    assert prepare("data.batch_size=1,8", fixed=("scheduler.warmup=500",))["tokens"] == 2560
    with pytest.raises(UserError, match="does not fit a run of 320 tokens"):
        prepare(fixed=("scheduler.warmup=500", "data.batch_size=1"))


def test_the_points_of_a_hundred_values_open_the_text_once(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: calls.append(name) or function(*given))

    counted(resolve, "token_store")
    counted(trials, "check_parts")
    prepare("seed=range(0,100)")
    assert sorted(calls) == ["check_parts", "token_store", "token_store"]  # a store for the preparation itself, and one for all points
    prepare("data.cleaning=1,2,3", "seed=1,2")
    assert calls.count("token_store") == 2 + 4
