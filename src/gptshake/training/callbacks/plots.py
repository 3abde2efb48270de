"""Draws the run's curves from its record when the training ends, however it ends."""

import pytorch_lightning as pl

from gptshake.training.module import GPTModule


class Plots(pl.Callback):
    """plots/loss.png and plots/loss.svg, shown to the trackers too."""

    rank_zero_only = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: GPTModule) -> None:  # type: ignore[override]
        self.complete(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: GPTModule, exception: BaseException) -> None:  # type: ignore[override]
        self.complete(trainer, pl_module)

    def complete(self, trainer: pl.Trainer, module: GPTModule) -> None:
        """Draw; called by itself for a run that was stopped between its last step and its end."""
        context = module.context
        context.run.flush()
        for path in context.draw(context.run.path) if module.steps else ():
            for tracker in context.trackers:
                tracker.image(path.stem, path)
