"""Generated text along the run, from the same prompts with the same random numbers, so that only the model differs."""

from contextlib import nullcontext
from typing import Any

import pytorch_lightning as pl

from gptshake.console import printable
from gptshake.errors import TrainingError
from gptshake.record.texts import TITLE
from gptshake.redaction import redact
from gptshake.signals import SIGNALS
from gptshake.tokenizer.protocol import Tokenizer
from gptshake.tokenizer.unknown import prompt_note
from gptshake.training.callbacks.metrics import not_finite
from gptshake.training.module import GPTModule
from gptshake.training.sampling import continuation


class Samples(pl.Callback):
    """Samples to the terminal, samples.md and the trackers.

    With several devices every rank draws them, as they may share one network; one writes.
    """

    def __init__(
        self,
        prompts: list[str] | str | None,  # texts to continue, or one; none: no samples
        n_tokens: int = 200,  # generated per prompt
        temperature: float = 0.8,  # as in ``model.generate``, like the next two
        top_k: int | None = None,
        top_p: float | None = None,
        times: int = 3,  # in a run, evenly spread, the first before the first step and the last after the last; one is at the end
    ) -> None:
        self.prompts = [prompts] if isinstance(prompts, str) else [str(prompt or "") for prompt in prompts or []]
        self.n_tokens, self.times = n_tokens, times if self.prompts else 0
        self.how: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}

    def due(self, n_steps: int) -> set[int]:
        if self.times < 2:
            return {n_steps} if self.times == 1 else set()
        return {round(n_steps * part / (self.times - 1)) for part in range(self.times)}

    def on_train_start(self, trainer: pl.Trainer, pl_module: GPTModule) -> None:  # type: ignore[override]
        """What the untrained model writes, and what it cannot read of a prompt."""
        for note in filter(None, (prompt_note(pl_module.context.store.tokenizer, prompt) for prompt in self.prompts)):
            pl_module.context.run.say(f"note: {note}")
        self.complete(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: GPTModule, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        if pl_module.micro_batches == 0 and pl_module.steps in self.due(pl_module.budget.steps):
            self._sample(pl_module)

    def complete(self, trainer: pl.Trainer, module: GPTModule) -> None:
        """Draw the sample of the last step if the record lacks it: a resumed run may have been stopped before it."""
        written = {sample.step for sample in module.context.run.samples() if sample.title == TITLE}
        if module.steps in self.due(module.budget.steps) - written:
            self._sample(module)

    def _sample(self, module: GPTModule) -> None:
        """Draw and show one; a signal ends it, as the step is done. TrainingError if the network's output is not finite."""
        context, step = module.context, module.steps
        tokenizer: Tokenizer = context.store.tokenizer
        texts = []
        try:
            with SIGNALS.immediate() if context.ranks.size == 1 else nullcontext():
                for prompt in self.prompts:
                    written = continuation(module.model, tokenizer, prompt, n_tokens=self.n_tokens, seed=0, **self.how)
                    texts.append(redact("".join(written)))  # a prompt may hold anything
        except TrainingError as error:
            raise TrainingError(not_finite(context.row, "output of the network") if step else str(error)) from error
        text = "\n---\n".join(texts)
        for tracker in context.trackers:
            tracker.sample(step, module.tokens, text)
        context.run.sample(step, module.tokens, text)
        context.run.say(f"--- sample at {100 * step / module.budget.steps:.0f} % (step {step:,}) ---\n{printable(texts[-1])}\n---")
