"""Lightning's counters by name: an update of Lightning that renames one must fail here, not resume wrongly."""

import copy
from typing import Any

import pytest

from gptshake.training.callbacks.checkpoint import rewrite_counters
from gptshake.training.callbacks.metrics import Metrics
from gptshake.training.trainer import build_trainer

# What Lightning says differently at a fit's end: the epoch is over, and one batch more was fetched.
EXPECTED = ("epoch_progress", "is_last_batch", "combined_loader")


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Every value of a tree by its path."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found = {path: value for key, child in items for path, value in leaves(child, f"{prefix}/{key}").items()}
    return found or {prefix: node}


@pytest.fixture
def lightnings(training: Any) -> dict[str, Any]:
    """Lightning's own checkpoint after four steps of two micro-batches; ours is taken out."""
    job = training(steps=4, micro=4)
    trainer = build_trainer(budget=job.budget, callbacks=[Metrics()], accelerator="cpu", devices=1, precision="32-true")
    trainer.fit(job.module, train_dataloaders=job.batches())
    checkpoint: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    return checkpoint


def test_every_counter_that_is_rewritten_is_one_that_lightning_has(lightnings: dict[str, Any]) -> None:
    rewritten = copy.deepcopy(lightnings)
    rewrite_counters(rewritten, steps=3, accumulation=2)
    assert leaves(rewritten).keys() == leaves(lightnings).keys()


def test_every_counter_of_batches_and_steps_is_rewritten(lightnings: dict[str, Any]) -> None:
    """Eight micro-batches and four steps occur nowhere any more: not in a counter that Lightning may have added."""
    rewrite_counters(lightnings, steps=3, accumulation=2)
    left = {
        path: value
        for path, value in leaves(lightnings["loops"]["fit_loop"]).items()
        if value in (4, 8) and not isinstance(value, bool) and "optim_progress" not in path and "scheduler_progress" not in path
    }
    assert left == {}
    assert lightnings["global_step"] == 3


def test_at_the_end_of_a_step_lightning_would_have_said_the_same(lightnings: dict[str, Any]) -> None:
    rewritten = copy.deepcopy(lightnings)
    rewrite_counters(rewritten, steps=4, accumulation=2)
    before, after = leaves(lightnings), leaves(rewritten)
    differing = {path for path in before if before[path] is not after[path] and str(before[path]) != str(after[path])}
    assert {path for path in differing if not any(name in path for name in EXPECTED)} == set()
