"""One sentence when the curve says that something is wrong: the model ignores context, or overfits or diverges.

The reference lines are closed forms of the training split: a model at the unigram entropy knows only how frequent tokens are.
"""

import pytorch_lightning as pl

from gptshake.training.module import GPTModule

PATIENT_FRACTION = 0.25  # of the run, before the unigram line is held against it: warm-up and the first fall lie behind
PATIENT_STEPS = 100  # and so many steps


class HealthChecks(pl.Callback):
    """Looks at every validation; says each thing once."""

    rank_zero_only = True

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.said: set[str] = set()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: GPTModule) -> None:  # type: ignore[override]
        context = pl_module.context
        self.losses.append(context.row["val/loss"])
        progress = pl_module.steps / pl_module.budget.steps
        sentence = problem_of(self.losses, context.store.entropy["unigram"], progress, context.row["train/lr"])
        if pl_module.steps >= PATIENT_STEPS and sentence and sentence[0] not in self.said:
            self.said.add(sentence[0])
            context.run.say(sentence[1])


def problem_of(losses: list[float], unigram: float, progress: float, lr: float) -> tuple[str, str] | None:
    """What to say after a validation, as (kind, sentence), or nothing.

    Losses, the newest last, and the entropy of the token frequencies are in nats per token; ``progress`` is the share of the run that is done.
    """
    if progress >= PATIENT_FRACTION and losses[-1] >= unigram:
        return "context", (
            f"note: val loss {losses[-1]:.3f} is not below the unigram entropy {unigram:.3f}: the model ignores context. Look at the learning rate "
            f"({lr:.2e} now) or the data; try optimizer.lr={3 * lr:.1e} and optimizer.lr={lr / 3:.1e}."
        )
    if len(losses) >= 4 and losses[-4] < losses[-3] < losses[-2] < losses[-1]:
        return "rising", (
            f"note: val loss has risen over three validations ({losses[-4]:.3f} to {losses[-1]:.3f}, learning rate {lr:.2e}): the model overfits or "
            f"diverges. Try a lower rate (optimizer.lr={lr / 3:.1e}), more dropout (model.dropout=0.2) or trainer.patience=3."
        )
    return None
