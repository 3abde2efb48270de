"""How fast the whole framework trains, beside nanoGPT if its checkout is given: tokens per second, MFU, and their ratio.

A callback in a real run (data, record, Lightning, every default callback) stops it every few steps and lets the model and
optimizer of nanoGPT's own ``model.py`` take as many, on the same batches (ready in memory, so data is free there): both sides see the
same machine at the same time. nanoGPT runs eager and compiled, in the precision that its ``train.py`` gives it: bf16 autocast on CUDA,
fp32 on a CPU whatever its ``dtype`` says. ``--peer-bf16`` adds bf16 autocast there, which nanoGPT does not offer. The target compares
with the fastest of these; validations, samples and checkpoints are not measured.

    python benchmarks/train_speed.py [--nanogpt PATH] [--shape tiny mid gpt3_small] [--compile off on] [--set KEY=VALUE ...] [--json FILE]
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    words: tuple[str, ...]
    vocabulary: int  # different characters of the text
    chunk: int  # steps on one side before the other has its turn
    rounds: int
    target: float | None  # of nanoGPT's best, times


SHAPES = {
    "tiny": Shape(("model=tiny", "data.batch_size=12"), 65, 20, 20, None),  # 4/4/128, block 64
    "mid": Shape(("model=baby", "model.dropout=0", "data.batch_size=16"), 65, 1, 12, 1.6),  # 6/6/384, block 256
    "gpt3_small": Shape(("model=gpt3_small", "model.block_size=1024", "data.batch_size=8"), 50_000, 1, 6, None),
}
WARM_UP_ROUNDS = 2  # of all sides, not counted: kernels are chosen and graphs compiled there
ADDED = " (by us)"  # a precision that nanoGPT does not offer there
UNCOUNTED_STEPS = 2  # the run's first, before the first round
COMMON = (
    *("model.bias=false", "data.micro_batch_size=${data.batch_size}", "logger=none", "callbacks.samples.times=1", "--dirty"),
    *("scheduler=constant", "scheduler.warmup=0", "trainer.limit_val_batches=1"),
)


def write_text(path: Path, vocabulary: int) -> None:
    """A text of so many different characters, each of them often enough to be in the training split."""
    draw = random.Random(1)
    letters = [chr(point) for point in (*range(0x4E00, 0x9FA0), *range(0x20000, 0x2A000))][:vocabulary]
    path.write_text("".join(draw.choices(letters, k=max(400_000, 40 * vocabulary))), encoding="utf-8")


def nanogpt(path: str, config: Any, device: str, bf16: bool, compiled: bool) -> Callable[[list[Any]], float]:
    """nanoGPT's model and optimizer in a loop of its kind: (batches) -> loss of the last one; goes on where it stands."""
    import torch

    spec = importlib.util.spec_from_file_location("nanogpt_model", Path(path) / "model.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = {key: getattr(config, key) for key in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "dropout", "bias")}
    with contextlib.redirect_stdout(io.StringIO()):
        torch.manual_seed(1)
        model = module.GPT(module.GPTConfig(**sizes)).to(device)
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), device)
    call = torch.compile(model) if compiled else model

    def run(batches: list[Any]) -> float:
        for batch in batches:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                _, loss = call(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(loss.item())

    return run


def rival(chunk: int, output: str, path: str | None, peer_bf16: bool) -> Any:
    """The callback that gives nanoGPT its turns; Hydra instantiates it in a run (``+callbacks.rival._target_``)."""
    import pytorch_lightning as pl

    from gptshake.hardware import wait

    class Rival(pl.Callback):
        def __init__(self) -> None:
            self.peers: dict[str, Callable[[list[Any]], float]] = {}
            self.batches: list[Any] = []
            self.began = 0.0
            self.seconds: dict[str, list[float]] = {"gptshake": []}

        def _make_peers(self, device: str, config: Any) -> None:
            own = device == "cuda"
            for bf16 in sorted({own, own or peer_bf16}) if path else ():
                for compiled in (False, True):
                    name = f"nanoGPT {'compiled' if compiled else 'eager'} {'bf16' if bf16 else 'fp32'}{'' if bf16 == own else ADDED}"
                    self.peers[name] = nanogpt(str(path), config, device, bf16, compiled)
                    self.seconds[name] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            device = pl_module.device.type
            if pl_module.steps == UNCOUNTED_STEPS:
                self._make_peers(device, pl_module.model.config)
            elif pl_module.steps > UNCOUNTED_STEPS:
                self.batches.append(batch)
                if len(self.batches) == chunk:
                    wait(device)
                    self.seconds["gptshake"].append((time.perf_counter() - self.began) / chunk)
                    for name, peer in self.peers.items():
                        began = time.perf_counter()
                        peer(self.batches)
                        self.seconds[name].append((time.perf_counter() - began) / chunk)
                    self.batches = []
            if not self.batches:
                wait(device)
                self.began = time.perf_counter()

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            figures = {
                "precision": trainer.precision,
                "tokens_per_step": pl_module.budget.tokens_per_step,
                "flops_per_token": pl_module.context.flops_per_token,
                "peak_flops": pl_module.context.peak_flops,
                "seconds": self.seconds,
            }
            Path(output).write_text(json.dumps(figures))

    return Rival()


def measure(shape: Shape, rounds: int, compiled: bool, path: Path | None, peer_bf16: bool, settings: list[str]) -> dict[str, Any]:
    """Seconds per step of each round on every side, from one run in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        output, text = Path(folder) / "rounds.json", Path(folder) / "text.txt"
        write_text(text, shape.vocabulary)
        steps = UNCOUNTED_STEPS + (rounds + WARM_UP_ROUNDS) * shape.chunk
        words = [*shape.words, "data=text_char", f"data.path={text}", *COMMON, f"trainer.compile={str(compiled).lower()}"]
        words += [f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps + 1}", *settings]
        words += [
            "+callbacks.rival._target_=train_speed.rival",
            f"+callbacks.rival.chunk={shape.chunk}",
            f"+callbacks.rival.output='{output}'",
            "+callbacks.rival.path=" + (f"'{path.resolve()}'" if path else "null"),
            f"+callbacks.rival.peer_bf16={str(peer_bf16).lower()}",
        ]
        python_path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "gptshake", *words]
        subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": python_path}, check=True, stdout=subprocess.DEVNULL)
        return dict(json.loads(output.read_text()))


def summarise(figures: dict[str, Any]) -> dict[str, Any]:
    """Medians of each side; for each peer the median over rounds of its seconds over ours, with its quartiles."""
    seconds = {name: values[WARM_UP_ROUNDS:] for name, values in figures["seconds"].items()}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rate = figures["tokens_per_step"] / medians["gptshake"]
    row = {
        "precision": figures["precision"],
        "rounds": len(seconds["gptshake"]),
        "ms": {name: 1e3 * value for name, value in medians.items()},
        "tokens_per_s": rate,
        "mfu": rate * figures["flops_per_token"] / figures["peak_flops"],
        "times": {},
    }
    for name, values in seconds.items():
        if name != "gptshake":
            ratios = [theirs / ours for ours, theirs in zip(seconds["gptshake"], values, strict=True)]
            row["times"][name] = [statistics.median(ratios), *statistics.quantiles(ratios, n=4)[::2]]
    return row


def tell(name: str, compiled: bool, row: dict[str, Any], target: float | None) -> str:
    """A row of the table and, indented, the peers' with how many times their seconds ours are."""
    ours = f"{row['ms']['gptshake']:8.1f} ms {row['tokens_per_s']:12,.0f} tokens/s   MFU {100 * row['mfu']:5.1f} %"
    lines = [f"{name:11} {'compiled' if compiled else 'eager':9} {row['precision']:11} {ours}"]
    for peer, (times, low, high) in row["times"].items():
        lines.append(f"    {peer:32} {row['ms'][peer]:8.1f} ms   {times:.2f} x ours (quartiles {low:.2f} to {high:.2f})")
    offered = [times for peer, (times, _, _) in row["times"].items() if not peer.endswith(ADDED)]
    if offered and target:
        lines.append(f"    against the faster of what nanoGPT offers: {min(offered):.2f} x (target {target} x)")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, metavar="PATH", help="a checkout of nanoGPT; without it only gptshake is measured")
    parser.add_argument("--peer-bf16", action="store_true", help="on a CPU, also nanoGPT's model under bf16 autocast")
    parser.add_argument("--shape", choices=SHAPES, nargs="+", default=["tiny", "mid"])
    parser.add_argument("--compile", choices=["off", "on"], nargs="+", default=["off"])
    parser.add_argument("--rounds", type=int, help="turns of each side")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="more overrides of the run")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.nanogpt and not (arguments.nanogpt / "model.py").exists():
        parser.error(f"there is no model.py in {arguments.nanogpt}: give the folder of a nanoGPT checkout")
    results: dict[str, Any] = {}
    for name in arguments.shape:
        shape = SHAPES[name]
        for word in arguments.compile:
            compiled, rounds = word == "on", arguments.rounds or shape.rounds
            figures = measure(shape, rounds, compiled, arguments.nanogpt, arguments.peer_bf16, arguments.set)
            row = results[f"{name}, compile {word}"] = summarise(figures)
            print(tell(name, compiled, row, shape.target), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
