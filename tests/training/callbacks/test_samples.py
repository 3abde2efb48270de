"""When samples are drawn, and that they disturb nothing."""

from typing import Any

import pytest
import torch

from gptshake.training.callbacks.samples import Samples


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

    eot_id, unk_id = 0, None

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(ord("a") + int(number)) for number in ids)


def fitted(training: Any, *callbacks: Any) -> Any:
    job = training(steps=4, dropout=0.2)
    job.store.tokenizer = Letters()
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


class Escapes(Letters):
    """One that writes what commands a terminal."""

    def decode(self, ids: list[int]) -> str:
        return "".join(f"{letter}\x1b]0;owned\x07\x9b31m" for letter in super().decode(ids))


def test_a_terminal_gets_no_control_characters_and_samples_md_the_text(training: Any, capsys: pytest.CaptureFixture[str]) -> None:
    job = training(steps=4)
    job.store.tokenizer = Escapes()
    job.fit(Samples(["abc"], n_tokens=5))
    out = capsys.readouterr().out
    assert "\\x1b]0;owned\\x07\\x9b31m" in out and "\x1b]" not in out and "\x9b" not in out
    assert job.run.samples()[-1].text.endswith("\x1b]0;owned\x07\x9b31m")


@pytest.mark.parametrize(("prompts", "n"), [([], 0), (None, 0), ("abc", 3), (["abc", None], 3)])
def test_no_prompt_is_no_sample_and_one_text_is_one_prompt(prompts: Any, n: int, training: Any) -> None:
    samples = fitted(training, Samples(prompts, n_tokens=2)).run.samples()
    assert len(samples) == n and all(sample.text.startswith("abc") for sample in samples)


def test_no_sample_is_drawn_when_none_is_wanted(training: Any) -> None:
    assert fitted(training, Samples(["abc"], times=0)).run.samples() == []
