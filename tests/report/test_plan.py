"""A plan as text and picture, from plain values."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gptshake.estimate.budget import Budget
from gptshake.estimate.memory import train_memory
from gptshake.model.config import GPTConfig
from gptshake.report.plots_tasks import draw_plan as draw
from gptshake.report.tasks_text import memory_parts
from gptshake.report.tasks_text import plan_text as text

MODEL = GPTConfig(6, 6, 384, 256, 281)
BUDGET = Budget(64, 32, 2, 256, 600, 16384, 9_830_400, 4.0, "4 epochs", ("a note",))


@pytest.fixture
def facts() -> dict[str, Any]:
    presets = [
        {"name": name, "parameters": n, "tokens": 20 * n, "seconds": s, "memory": 2**30} for name, n, s in (("a", 1e6, 60), ("b", 1e7, 6e3))
    ]
    return {
        "title": "baby · wiki_char · excerpt106",
        "device": "A100",
        "how": "assumed, 30% of its peak",
        "settings": "bf16-mixed",
        "parameters": MODEL.params_by_part(),
        "non_embedding": MODEL.num_params(non_embedding=True),
        "flops_per_token": MODEL.flops_per_token(),
        "budget": BUDGET,
        "memory": train_memory(MODEL, 32, base=1 << 29),
        "memory_there": 80 << 30,
        "tokens_per_s": 250_000.0,
        "seconds": {"start": 5.0, "steps": 39.0, "validations": 10.0, "checkpoints": 5.0, "samples": 1.0, "test": 0.0},
        "price_per_hour": 1.6,
        "currency": "$",
        "checkpoint_bytes": 130_000_000,
        "lr": 1e-3,
        "laws": True,
        "schedule": "cosine, warm-up 12 steps",
        "bytes_per_token": 1.02,
        "within": {"hours": 1.0, "steps": 30_000, "epoch_tokens": 2.46e6, "documents": 91, "presets": presets},
    }


def test_the_text_says_everything_that_was_asked(facts: dict[str, Any]) -> None:
    said = text(facts)
    for part in (
        "attention 3.55M",
        "64 = 2 x 32 sequences of 256 = 16,384 tokens",
        "600 steps = 9.83M tokens = 4 epochs (limit: 4 epochs)",
        "rate        peak lr 1e-3, cosine, warm-up 12 steps",
        "of 80 GiB",
    ):
        assert part in said
    for part in (
        "250k tokens/s",
        "1 min 00 s = ",
        "cost        $0.03 at $1.60 per hour",
        "124 MiB a checkpoint",
        "lr 2.4e-3",
        "0.41 x that",
        "note: a note",
    ):
        assert part in said
    assert "In 1 hour: 30,000 steps = 492M tokens = 200 epochs of this text" in said and "(18,182 documents like these)" in said
    assert "The largest model that fits is a," in said
    assert "\nwarning: 200 epochs in 1 hour: beyond about 20 a model learns its text by heart;" in said


def test_hours_for_more_text_than_there_is_are_doubted_unless_the_run_itself_is(facts: dict[str, Any]) -> None:
    assert text({key: value for key, value in facts.items() if key != "within"}).endswith("no problems found")
    assert text(facts | {"within": facts["within"] | {"epoch_tokens": 30_000 * 16384 / 20}}).endswith("no problems found")
    assert "warning: 170,000 epochs in 1 hour:" in text(facts | {"within": facts["within"] | {"epoch_tokens": 30_000 * 16384 / 1.7e5}})
    said = text(facts | {"budget": replace(BUDGET, epochs=1.7e5)})
    assert "warning: 170,000 epochs: beyond" in said and said.count("by heart") == 1


def test_another_optimizer_than_adamw_gets_no_law(facts: dict[str, Any]) -> None:
    said = text(facts | {"laws": False})
    assert "scaling law none: published laws are for AdamW" in said
    assert not any(word in said for word in ("lr 2.4e-3", "DeepSeek", "beta2", "to sweep it"))


def test_one_of_a_thing_is_not_told_as_several(facts: dict[str, Any]) -> None:
    said = text(facts | {"budget": replace(BUDGET, batch_size=1, accumulation=1, steps=1, epochs=1.0)})
    assert "1 sequence of 256 = " in said and "1 step = 9.83M tokens = 1 epoch (" in said


def test_what_does_not_fit_is_doubted_and_without_a_price_there_is_no_cost(facts: dict[str, Any]) -> None:
    said = text(facts | {"memory_there": 1 << 30, "price_per_hour": None})
    assert "warning: this needs about" in said and "no problems found" not in said and "cost" not in said
    assert "No model of ours fits" in text(facts | {"memory_there": 1 << 29})


def test_the_parts_of_the_memory_are_its_peak(facts: dict[str, Any]) -> None:
    for micro, cpu in ((1, True), (64, True), (64, False)):
        memory = train_memory(MODEL, micro, on_cpu=cpu, base=1 << 28)
        assert sum(memory_parts(memory).values()) == memory.total


def test_the_picture_is_there_twice_and_the_same_every_time(facts: dict[str, Any], tmp_path: Path) -> None:
    first, second = draw(facts, tmp_path / "a"), draw(facts, tmp_path / "b")
    assert [file.name for file in first] == ["plan.png", "plan.svg"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
