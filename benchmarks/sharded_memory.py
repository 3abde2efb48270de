"""What each of several processes holds of a network with trainer=ddp and with trainer=fsdp, and what a checkpoint takes on disk.

The ranks are processes on this machine's CPU (gloo); their number may be larger than that of its cores. In MiB of 2^20 bytes: the tensors
that a rank has after its last step, and its peak of resident memory over what it held after it had trained a tiny network (at the start,
when the network is whole; in training, with activations and buffers; while saving), and the files of one checkpoint. The C library
returns what is freed at once (MALLOC_MMAP_THRESHOLD_), else its heap hides the difference.

    python benchmarks/sharded_memory.py [--ranks 8] [--precision 32-true|bf16-mixed] [--json FILE]
"""

import argparse
import json
import multiprocessing
import os
import re
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from gptshake import distributed, torchrun
from gptshake.estimate.budget import Budget
from gptshake.model.gpt import GPT
from gptshake.optim.adamw import adamw
from gptshake.training.trainer import build_trainer

TINY = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 64, "vocab_size": 64}
SHAPE = {"n_layer": 12, "n_head": 4, "n_embd": 256, "block_size": 64, "vocab_size": 2048}
ROWS, STEPS, MICRO_BATCHES = 1, 3, 2
PARTS = ("weights", "gradients", "moments", "peak: start", "peak: training", "peak: saving")


def resident(key: str = "VmRSS") -> float:
    """MiB of this process; ``VmHWM`` is the most since ``forget_peak``."""
    found = re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 2**10


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Module(pl.LightningModule):
    """A network, and what this rank holds of it, in MiB."""

    def __init__(self, shape: dict[str, int]) -> None:
        super().__init__()
        self.found: dict[str, float] = {}
        self.base = resident()
        forget_peak()
        self.model = GPT(**shape)

    def training_step(self, batch: Tensor, number: int) -> Tensor:
        return self.model.loss(batch[:, :-1], batch[:, 1:])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adamw(self.model.named_parameters(), lr=1e-3)

    def on_train_start(self) -> None:
        self.peak("start")

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.found["gradients"] = size(weight.grad for weight in self.model.parameters())

    def peak(self, part: str) -> None:
        self.found[f"peak: {part}"] = resident("VmHWM") - self.base
        forget_peak()


def size(tensors: Any) -> float:
    """MiB of what this rank has of them."""
    own = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in own) / 2**20


def train(shape: dict[str, int], strategy: str, options: Any, folder: Path) -> dict[str, float]:
    """Train and save as one of the ranks."""
    n_rows = ROWS * MICRO_BATCHES * options.ranks
    tokens = n_rows * shape["block_size"]
    budget = Budget(n_rows, ROWS, MICRO_BATCHES, shape["block_size"], STEPS, tokens, STEPS * tokens, 1.0, "max_steps", ())
    batches = [torch.randint(shape["vocab_size"], (ROWS, shape["block_size"] + 1)) for _ in range(STEPS * MICRO_BATCHES)]
    how: Any = {"accelerator": "cpu", "devices": options.ranks, "precision": options.precision, "strategy": strategy}
    trainer, module = build_trainer(budget=budget, callbacks=[], **how), Module(shape)
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    module.peak("training")
    states = trainer.optimizers[0].state.values()
    module.found["weights"] = size(module.model.parameters())
    module.found["moments"] = size(state[name] for state in states for name in ("exp_avg", "exp_avg_sq"))
    trainer.save_checkpoint(folder)
    module.peak("saving")
    return module.found


def rank(number: int, strategy: str, options: Any, folder: Path, port: str, pipe: Any) -> None:
    """One of the processes; sends what it holds."""
    names = (*torchrun.VARIABLES, distributed.DEVICE)
    os.environ |= dict(zip(names, (str(number), str(number), str(options.ranks), "127.0.0.1", port, "cpu"), strict=True))
    torch.set_num_threads(1)
    distributed.join()
    train(TINY, strategy, options, folder.with_suffix(".tiny"))
    pipe.send(train(SHAPE, strategy, options, folder))
    distributed.leave()


def measure(strategy: str, options: Any, folder: Path) -> dict[str, Any]:
    """The most of any rank by part, and the files of the checkpoint, in MiB."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pipes = [context.Pipe(duplex=False) for _ in range(options.ranks)]
    ranks = [context.Process(target=rank, args=(number, strategy, options, folder, port, pipe)) for number, (_, pipe) in enumerate(pipes)]
    for process in ranks:
        process.start()
    found = [here.recv() for here, _ in pipes]
    for process in ranks:
        process.join()
    files = {file.name: file.stat().st_size / 2**20 for file in sorted(folder.glob("*.safetensors"))}
    return {part: max(one[part] for one in found) for part in PARTS} | {"files": files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:  # read when a process begins
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 18)})
    with tempfile.TemporaryDirectory() as folder:
        results = {strategy: measure(strategy, options, Path(folder) / strategy) for strategy in ("ddp", "fsdp")}
    print(f"MiB of each of {options.ranks} ranks (the largest), {options.precision}")
    print(f"{'':16}{'ddp':>10}{'fsdp':>10}")
    for part in PARTS:
        print(f"{part:16}{results['ddp'][part]:10.1f}{results['fsdp'][part]:10.1f}")
    for name, how in (("disk: all", sum), ("disk: largest", max)):
        print(f"{name:16}{how(results['ddp']['files'].values()):10.1f}{how(results['fsdp']['files'].values()):10.1f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
