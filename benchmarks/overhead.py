"""What the whole framework adds to a training step: our command line against a bare PyTorch loop.

A callback in a real run (data, record, W&B offline, Lightning, every default callback) stops it every few steps and takes as
many steps in a bare loop: a copy of the same network, the same optimizer, batches (ready in memory, so data is free there),
precision and clipping. So both sides see the same machine at the same time. With one thread the losses agree bit for bit: it is
the same work. Not measured: validations, samples and checkpoints, which are work that was asked for.

    python benchmarks/overhead.py [--rounds N] [--logger wandb|none] [--clock wall|cpu] [--shape tiny|mid] [--set KEY=VALUE ...] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    model: tuple[str, ...]
    batch_size: int
    chunk: int  # steps on one side before the other has its turn
    rounds: int
    target: float  # most that the framework may add, as a fraction


SHAPES = {
    "tiny": Shape(("model=tiny",), 12, 20, 40, 0.05),  # 4/4/128, block 64
    "mid": Shape(("model=baby", "model.dropout=0"), 16, 1, 16, 0.01),  # 6/6/384, block 256
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
WARM_UP_ROUNDS = 3  # of both sides, not counted
UNCOUNTED_STEPS = 3  # the network's first steps, before the first round


def bare_loop(module: Any, precision: str, clip: float) -> Callable[[list[Any]], float]:
    """A training loop without anything around it: (batches) -> loss of the last one; continues where ``module`` stands."""
    import torch

    model = deepcopy(module.model)
    optimizer = module._optimizer(model.named_parameters())
    optimizer.load_state_dict(deepcopy(module.optimizers().optimizer.state_dict()))
    for group in optimizer.param_groups:
        group.pop("peak_lr")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def run(batches: list[Any]) -> float:
        for batch in batches:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = model.loss(batch[:, :-1], batch[:, 1:])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
        return loss.item()

    return run


def rival(chunk: int, output: str, clock: str) -> Any:
    """The callback that lets the bare loop have its turn; Hydra instantiates it in a run (``+callbacks.rival._target_``)."""
    import pytorch_lightning as pl

    read = CLOCKS[clock]

    class Rival(pl.Callback):
        def __init__(self) -> None:
            self.run: Callable[[list[Any]], float] | None = None
            self.batches: list[Any] = []
            self.began = 0.0
            self.framework: list[float] = []
            self.bare: list[float] = []
            self.same = True

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            now = read()
            if pl_module.steps == UNCOUNTED_STEPS:
                self.run = bare_loop(pl_module, trainer.precision, pl_module._clip)
            elif self.run:
                self.batches.append(batch)
                if len(self.batches) == chunk:
                    self._turn(now, pl_module.context.row["train/loss"])
            if not self.batches:
                self.began = read()

        def _turn(self, now: float, loss: float) -> None:
            self.framework.append((now - self.began) / chunk)
            began = read()
            bare_loss = self.run(self.batches) if self.run else 0.0
            self.bare.append((read() - began) / chunk)
            self.same &= bare_loss == loss
            self.batches = []

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            figures = {"precision": trainer.precision, "framework": self.framework, "bare": self.bare, "same_losses": self.same}
            Path(output).write_text(json.dumps(figures))

    return Rival()


def measure(shape: Shape, rounds: int, logger: str, clock: str, settings: list[str]) -> dict[str, Any]:
    """Seconds per step of each round on either side, from one run in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "rounds.json"
        steps = UNCOUNTED_STEPS + (rounds + WARM_UP_ROUNDS) * shape.chunk
        words = [*shape.model, "data=wiki_char", f"data.batch_size={shape.batch_size}", f"logger={logger}", "--dirty"]
        words += ["scheduler=constant", "scheduler.warmup=0", f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps + 1}"]
        words += ["callbacks.samples.times=1", "trainer.limit_val_batches=1", *settings]
        words += [
            "+callbacks.rival._target_=overhead.rival",
            f"+callbacks.rival.chunk={shape.chunk}",
            f"+callbacks.rival.output='{output}'",
            f"+callbacks.rival.clock={clock}",
            *(["trainer.threads=1"] if clock == "cpu" else []),
        ]
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path, "WANDB_MODE": "offline"}
        command = [sys.executable, "-m", "gptshake", *words]
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        return json.loads(output.read_text())


def summarise(figures: dict[str, Any]) -> dict[str, Any]:
    """Medians in milliseconds, and the median over rounds of the paired ratio with its quartiles."""
    framework, bare = (figures[side][WARM_UP_ROUNDS:] for side in ("framework", "bare"))
    ratios = [ours / theirs for ours, theirs in zip(framework, bare, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "precision": figures["precision"],
        "rounds": len(ratios),
        "framework_ms": 1e3 * statistics.median(framework),
        "bare_ms": 1e3 * statistics.median(bare),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [low, high],
        "same_losses": figures["same_losses"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="turns of each side")
    parser.add_argument("--logger", default="wandb", help="wandb (offline; the default of a run) or none")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: one thread and its own time, for a machine that others use")
    parser.add_argument("--shape", choices=SHAPES, nargs="+", default=list(SHAPES))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="more overrides of the run")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    print(f"{'shape':6} {'precision':11} {'bare':>10} {'framework':>10} {'adds':>8} {'quartiles':>18} {'target':>8}  same losses")
    for name in arguments.shape:
        shape = SHAPES[name]
        row = results[name] = summarise(measure(shape, arguments.rounds or shape.rounds, arguments.logger, arguments.clock, arguments.set))
        low, high = (f"{100 * ratio - 100:+.1f} %" for ratio in row["ratio_quartiles"])
        print(
            f"{name:6} {row['precision']:11} {row['bare_ms']:7.2f} ms {row['framework_ms']:7.2f} ms {100 * row['ratio'] - 100:+6.1f} %"
            f" {low + ' to ' + high:>18} {100 * shape.target:6.0f} %  {'yes' if row['same_losses'] else 'NO'}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
