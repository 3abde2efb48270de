"""When samples are drawn, and that they disturb nothing."""

from typing import Any

import pytest
import torch

from gptshake.training.callbacks.samples import Samples, _calm


@pytest.mark.parametrize(
    ("times", "n_steps", "due"),
    [
        *((3, 100, {0, 50, 100}), (2, 100, {0, 100}), (5, 8, {0, 2, 4, 6, 8}), (1, 100, {100}), (0, 100, set())),
        *((3, 1, {0, 1}), (10, 3, {0, 1, 2, 3})),
    ],
)
def test_samples_are_spread_evenly_with_one_at_the_start_and_one_at_the_end(times: int, n_steps: int, due: set[int]) -> None:
    assert Samples([""], times=times).due(n_steps) == due


class Letters:
    """A tokenizer of eleven letters."""

    eot_id = 0

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(ord("a") + int(number)) for number in ids)


def fitted(training: Any, *callbacks: Any) -> Any:
    job = training(steps=4, dropout=0.2)
    job.bench.tokenizer = Letters()
    job.fit(*callbacks)
    return job


def test_samples_change_nothing_in_the_training(training: Any) -> None:
    plain, sampled = fitted(training), fitted(training, Samples(["abc", ""], n_tokens=20, times=5))
    for left, right in zip(plain.model.parameters(), sampled.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_samples_md_has_every_due_step_and_continues_the_prompt(training: Any, capsys: pytest.CaptureFixture[str]) -> None:
    job = fitted(training, Samples(["abc"], n_tokens=5, times=3))
    samples = job.run.samples()
    assert [(sample.step, sample.tokens) for sample in samples] == [(0, 0), (2, 128), (4, 256)]
    assert all(sample.text.startswith("abc") and len(sample.text) == 8 for sample in samples)
    assert "--- sample at 50 % (step 2) ---" in capsys.readouterr().out


def test_the_first_and_the_last_sample_differ_only_by_the_model(training: Any) -> None:
    one, two = (fitted(training, Samples(["abc"], n_tokens=5)).run.samples() for _ in range(2))
    assert [sample.text for sample in one] == [sample.text for sample in two]


def test_a_terminal_is_not_upset() -> None:
    assert _calm("a\x1b[31m\x00b\nä\u200b") == "a·[31m··b\nä·".replace("··b", "·b")


def test_no_sample_is_drawn_when_none_is_wanted(training: Any) -> None:
    assert fitted(training, Samples(["abc"], times=0)).run.samples() == []
