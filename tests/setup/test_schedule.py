"""What is said of a rate that was found for runs of another length, and of lengths that are shorter than a step."""

import pytest
from omegaconf import OmegaConf

from gptshake.estimate.budget import Request, plan
from gptshake.setup.schedule import lr_transfer_note, schedule_text, warmup_notes


@pytest.mark.parametrize(
    ("found", "steps", "said"),
    [
        (None, 500, ""),
        ({"run": "x1", "tokens": None}, 500, ""),
        ({"run": "x1", "tokens": 1_024_000, "warmup_tokens": 307_200.0}, 500, ""),
        (
            {"run": "x1", "tokens": 256_000, "warmup_tokens": 75_776.0},
            500,
            "its warm-up is longer than that one's, which was cut to 30 % of the run",
        ),
        (
            {"run": "x1", "tokens": 1_228_800, "warmup_tokens": 327_680.0},
            2_000,
            "found by x1 for 1.23M tokens, this run has 4.1M: with AdamW it was seen to carry within a factor of 4",
        ),
        ({"run": "x1", "tokens": 1_228_800, "warmup_tokens": 327_680.0}, 20_000, "was measured with AdamW, and to a factor of 4 in length"),
        ({"run": "x1", "tokens": 4_096_000, "warmup_tokens": None}, 1_000, "within a factor of 4"),
    ],
)
def test_a_rate_from_runs_of_another_length_says_how_far_it_carries(found: dict[str, object] | None, steps: int, said: str) -> None:
    request = Request(
        n_parameters=10_000, epoch_tokens=2_048_000, block_size=64, batch_size=32, micro_batch_size=32, max_micro_batch=32, max_steps=steps
    )
    note = lr_transfer_note(found, plan(request))
    assert said in note and bool(note) == bool(said)


@pytest.mark.parametrize(
    ("name", "lengths", "said"),
    [
        ("wsd", {"warmup": 100}, "scheduler.warmup=100 is 100 tokens (below 1 it is a fraction of the run), less than a step of 2,048"),
        ("wsd", {"warmup": 0.3, "cooldown": 1}, "scheduler.cooldown=1 is 1 token"),
        ("gpt3", {"warmup": 0, "decay": 2}, "scheduler.decay=2 is 2 tokens"),
        ("wsd", {"warmup": 4096, "cooldown": 0.1}, ""),
    ],
)
def test_a_length_shorter_than_a_step_is_pointed_out(name: str, lengths: dict[str, float], said: str) -> None:
    scheduler = {"_target_": f"gptshake.optim.schedule.{name}", "_partial_": True, **lengths}
    request = Request(
        n_parameters=10_000, epoch_tokens=2_048_000, block_size=64, batch_size=32, micro_batch_size=32, max_micro_batch=32, max_steps=50
    )
    notes = warmup_notes(OmegaConf.create({"scheduler": scheduler, "optimizer": {}}), plan(request))
    assert said in "".join(notes) and bool(notes) == bool(said)


@pytest.mark.parametrize(("warmup", "share"), [(0.999, "100 %"), (0.3, "30 %")])
def test_the_share_of_a_warm_up_is_a_plain_number(warmup: float, share: str) -> None:
    scheduler = {"_target_": "gptshake.optim.schedule.cosine", "_partial_": True, "warmup": warmup}
    request = Request(
        n_parameters=10_000, epoch_tokens=2_048_000, block_size=64, batch_size=32, micro_batch_size=32, max_micro_batch=32, max_steps=50
    )
    assert schedule_text(OmegaConf.create({"scheduler": scheduler, "optimizer": {}}), plan(request)).endswith(f", {share} of the run")
