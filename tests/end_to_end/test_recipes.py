"""Every recipe of ``experiment=`` trains: a few steps with its own batch, optimizer and schedule, by a network made small, on a small text."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from gptshake.config.compose import compose
from gptshake.config.layout import options

LITTLE = (
    *("model.n_layer=1", "model.n_head=1", "model.n_embd=8", "model.block_size=16", "data=text_char"),
    *("trainer=cpu", "trainer.threads=1", "trainer.precision=32-true", "trainer.max_steps=3", "trainer.max_epochs=null"),
    *(
        "init_from=null",  # GPT-2's weights are in tests/export/test_init_from_hf.py
        "trainer.val_check_interval=2",
        "trainer.limit_val_batches=1",
        "++callbacks.samples=null",
        "++callbacks.plots=null",
        "logger=none",
    ),
)


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_recipe_trains(experiment: str, commands: Any, book: Path, tmp_path: Path, the_run: Any) -> None:
    done = commands(tmp_path, f"experiment={experiment}", *LITTLE, f"data.path={book}")
    assert done.code == 0 and done.err == "", done.out + done.err
    record, recipe = the_run(tmp_path), compose([f"experiment={experiment}"])
    assert record.steps == [1, 2, 3] and record.info["status"] == "ok" and record.info["choices"]["experiment"] == experiment
    stored = OmegaConf.load(record.path / "config.yaml")
    assert (stored.optimizer, stored.scheduler) == (recipe.optimizer, recipe.scheduler)
    if recipe.data.batch_tokens is not None:
        assert record.info["budget"]["tokens_per_step"] == recipe.data.batch_tokens
    elif recipe.data.batch_size != "auto":
        assert record.info["budget"]["tokens_per_step"] == 16 * recipe.data.batch_size
