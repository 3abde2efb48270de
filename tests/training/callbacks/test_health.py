"""One sentence, only when the curve says that something is wrong."""

import pytest
from hydra.utils import instantiate

from gptshake.training.callbacks.health import HealthChecks, problem_of

UNIGRAM = 3.0


def kind(*losses: float, progress: float = 0.5) -> str | None:
    said = problem_of(list(losses), UNIGRAM, progress, 1e-3)
    return said[0] if said else None


@pytest.mark.parametrize("losses", [(2.9,), (3.5, 3.2, 2.5), (2.0, 2.1, 2.2), (2.0, 2.2, 2.1, 2.3), (2.3, 2.2, 2.1, 2.4)])
def test_a_curve_that_is_fine_gets_no_advice(losses: tuple[float, ...]) -> None:
    assert kind(*losses) is None


def test_a_loss_on_or_above_the_unigram_line_is_told_after_the_first_quarter_only() -> None:
    assert kind(3.0) == kind(4.0, 3.5) == "context"
    assert kind(3.5, progress=0.24) is None
    assert kind(3.5, progress=0.25) == "context"


def test_three_rises_in_a_row_are_told() -> None:
    assert kind(2.0, 2.1, 2.2, 2.3) == "rising"
    assert kind(2.5, 2.0, 2.1, 2.2, 2.3, progress=0.01) == "rising"


def test_the_sentences_name_the_rate_and_the_next_commands() -> None:
    context, rising = problem_of([3.5], UNIGRAM, 0.5, 1e-3), problem_of([2.0, 2.1, 2.2, 2.3], UNIGRAM, 0.5, 1e-3)
    assert context and rising
    assert "1.00e-03" in context[1] and "optimizer.lr=3.0e-03 and optimizer.lr=3.3e-04" in context[1] and "3.000" in context[1]
    assert "1.00e-03" in rising[1] and "optimizer.lr=3.3e-04" in rising[1] and "model.dropout=0.2" in rising[1]


def test_a_run_says_each_thing_once(training, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    training(steps=120, interval=5, val_losses=[2.5]).fit(HealthChecks())
    assert "ignores context" in (said := capsys.readouterr().out) and said.count("note:") == 1


def test_a_short_run_is_left_in_peace(training, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    training(steps=20, interval=2, val_losses=[9.0]).fit(HealthChecks())
    assert "note:" not in capsys.readouterr().out


def test_the_name_of_earlier_versions_finds_it() -> None:
    assert isinstance(instantiate({"_target_": "gptshake.training.callbacks.advice.Advice"}), HealthChecks)
