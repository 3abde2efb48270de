"""How right a plan is: seconds and peak of memory as ``task=plan`` predicts them, against short real runs.

Each case is predicted before and after its run (the mean counts), because the machine drifts. Compared are the seconds between the
first and the last step (steps, validations, samples and checkpoints) and the most memory that the run's process held; a target of 15 %.
With ``--clock cpu`` both sides take one thread and count its own time, for a machine that others use.

    python benchmarks/plan_accuracy.py [--case tiny baby gpt3_small] [--clock wall|cpu] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMMON = ("data=wiki_char", "logger=none", "callbacks.samples.times=2", "callbacks.samples.n_tokens=50")
CASES = {
    "tiny": ("model=tiny", "trainer.max_steps=150", "trainer.val_check_interval=50", "trainer.limit_val_batches=30"),
    "baby": ("model=baby", "data.batch_size=32", "trainer.max_steps=6", "trainer.val_check_interval=3", "trainer.limit_val_batches=3"),
    "gpt3_small": (
        *("model=gpt3_small", "data.batch_tokens=4096", "trainer.max_steps=3", "trainer.val_check_interval=3"),
        *("trainer.limit_val_batches=1", "callbacks.samples.n_tokens=10"),
    ),
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
TARGET = 0.15


def clock(kind: str, output: str) -> Any:
    """The callback that writes down the seconds of the fit; Hydra instantiates it in the run, after all others."""
    import pytorch_lightning as pl

    class Clock(pl.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.began = CLOCKS[kind]()

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            Path(output).write_text(json.dumps(CLOCKS[kind]() - self.began))

    return Clock()


def predict(words: list[str], kind: str) -> dict[str, float]:
    """Seconds and bytes, in this process; the samples before the first step are not counted."""
    from gptshake.config.compose import compose
    from gptshake.setup import costs, resolve
    from gptshake.setup.plan import plan
    from gptshake.training import probe

    probe.time.perf_counter = CLOCKS[kind]  # the forked child has it, too
    cfg = compose(["task=plan", *words])
    facts: Any = plan(cfg, resolve.token_store(cfg, []), "")
    seconds = facts["seconds"]
    fit = seconds["steps"] + seconds["validations"] + seconds["checkpoints"] + seconds["samples"] / 2
    formula = costs.memory(cfg, costs.model_costs(cfg, 281), facts["budget"].micro_batch_size, probe.BASE_BYTES).total
    return {"seconds": fit, "bytes": facts["memory"].total, "formula": formula}


def child(arguments: list[str], folder: str) -> tuple[str, int]:
    """Output of a process, and the most memory it held in bytes."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(arguments, cwd=folder, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} ended with status {status}\n{output}")
    return output, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(case: tuple[str, ...], kind: str) -> dict[str, float]:
    """Predicted and measured."""
    words = [*COMMON, *case, *(["trainer.threads=1"] if kind == "cpu" else [])]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "seconds.json"
        ask = [sys.executable, __file__, "--clock", kind, "--predict", *words]
        timer = [f"+callbacks.zz.{key}={value}" for key, value in (("_target_", "plan_accuracy.clock"), ("kind", kind))]
        run = [sys.executable, "-m", "gptshake", *words, *timer, f"+callbacks.zz.output='{output}'", "--dirty"]
        before = json.loads(child(ask, folder)[0].splitlines()[-1])
        _, peak = child(run, folder)
        after = json.loads(child(ask, folder)[0].splitlines()[-1])
        return {
            "predicted_s": statistics.mean((before["seconds"], after["seconds"])),
            "predicted_bytes": statistics.mean((before["bytes"], after["bytes"])),
            "formula_bytes": before["formula"],
            "measured_s": json.loads(output.read_text()),
            "measured_bytes": peak,
            "drift": after["seconds"] / before["seconds"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--predict", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.predict:
        print(json.dumps(predict(arguments.predict, arguments.clock)))
        return
    results = {}
    print(
        f"{'case':12} {'predicted':>11} {'measured':>11} {'off':>7} {'drift':>6} | {'plan':>10} {'formula':>10} {'measured':>10} {'off':>7} {'off':>7}"
    )
    for name in arguments.case:
        row = results[name] = measure(CASES[name], arguments.clock)
        off = row["predicted_s"] / row["measured_s"] - 1
        plan, formula = (row[key] / row["measured_bytes"] - 1 for key in ("predicted_bytes", "formula_bytes"))
        sizes = [f"{row[key] / 2**20:6.0f} MiB" for key in ("predicted_bytes", "formula_bytes", "measured_bytes")]
        print(
            f"{name:12} {row['predicted_s']:9.1f} s {row['measured_s']:9.1f} s {off:+7.1%} {row['drift']:6.2f} | {' '.join(sizes)} {plan:+7.1%} {formula:+7.1%}"
            f"  {'within' if max(abs(off), abs(plan)) <= TARGET else 'NOT within'} {TARGET:.0%}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
