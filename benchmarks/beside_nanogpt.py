"""What a user would do instead: nanoGPT's CPU recipe beside ``model=tiny`` as typed, on the same text, split, shape, batch and tokens.

nanoGPT (its train.py as it is): 4 layers, 4 heads, width 128, block 64, batch 12, 2,000 steps, lr 1e-3 with 100 steps of warm-up and a
cosine to 1e-4, beta2 0.99, no dropout, the first 90 % of the characters to train on. Ours has the same shape and batch, and everything
else as it comes. Both are scored over the whole validation split, in nats per character, for each seed.

    python benchmarks/beside_nanogpt.py --nanogpt PATH --text FILE [--seeds N] [--set KEY=VALUE ...] [--json FILE]
"""

import argparse
import json
import math
import pickle
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptshake.record.run import read_run

BLOCK, BATCH, STEPS, VAL = 64, 12, 2_000, 0.1
THEIRS = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=1 --eval_interval=2000 --log_interval=500 "
    f"--always_save_checkpoint=True --block_size={BLOCK} --batch_size={BATCH} --n_layer=4 --n_head=4 --n_embd=128 --max_iters={STEPS} "
    f"--lr_decay_iters={STEPS} --dropout=0.0"
)
OURS = (
    f"model=tiny data=text_char data.split=position data.val_fraction={VAL} data.test_fraction=0 data.batch_size={BATCH} "
    f"trainer.max_steps={STEPS} trainer.val_check_interval={STEPS} callbacks=none logger=none"
)
SEEDED = """
import runpy, sys, torch
seed, own = torch.manual_seed, int(sys.argv.pop(1))
torch.manual_seed = lambda number: seed(number + own)
sys.path.insert(0, "")
sys.argv = sys.argv[1:]
runpy.run_path("train.py", run_name="__main__")
"""


def prepare(text: str, folder: Path) -> np.ndarray:
    """The files that nanoGPT reads, as its prepare.py writes them; the ids of the validation split."""
    letters = sorted(set(text))
    number = {letter: place for place, letter in enumerate(letters)}
    ids = np.array([number[letter] for letter in text], dtype=np.uint16)
    cut = int(len(ids) * (1 - VAL))
    ids[:cut].tofile(folder / "train.bin")
    ids[cut:].tofile(folder / "val.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(letters), "stoi": number, "itos": dict(enumerate(letters))}))
    return ids[cut:]


def nanogpt(checkout: Path, data: Path, val: np.ndarray, seed: int) -> float:
    """Train with its own train.py; the loss of its last checkpoint over every token of the split but the first."""
    out = data / f"out-{seed}"
    words = [*THEIRS.split(), f"--dataset={data}", f"--out_dir={out}"]
    subprocess.run([sys.executable, "-c", SEEDED, str(seed), "train.py", *words], cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    sys.path.insert(0, str(checkout))
    from model import GPT, GPTConfig

    saved = torch.load(out / "ckpt.pt", weights_only=True)
    assert saved["iter_num"] == STEPS
    network = GPT(GPTConfig(**saved["model_args"])).eval()
    network.load_state_dict(saved["model"])
    ids = torch.from_numpy(val.astype(np.int64))
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(ids) - 1, BLOCK):
            piece = ids[start : start + BLOCK + 1][None]
            total += float(network(piece[:, :-1], piece[:, 1:])[1]) * (piece.shape[1] - 1)
    return total / (len(ids) - 1)


def gptshake(text: Path, seed: int, settings: list[str]) -> float:
    """``model=tiny`` as typed; its val/loss, which is over the whole split, too."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*OURS.split(), f"data.path={text.absolute()}", f"seed={seed}", "--dirty", *settings]
        subprocess.run([sys.executable, "-m", "gptshake", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        loss: float = read_run(next((Path(folder) / "runs").iterdir()))["summary"]["val/loss"]
        return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, metavar="PATH", help="a checkout of nanoGPT")
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="a text file, about a million characters")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="more overrides of our run")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    losses: dict[str, list[float]] = {"nanoGPT": [], "gptshake": []}
    with tempfile.TemporaryDirectory() as folder:
        val = prepare(options.text.read_text(encoding="utf-8"), Path(folder))
        for seed in range(1, options.seeds + 1):
            losses["nanoGPT"].append(nanogpt(options.nanogpt.absolute(), Path(folder), val, seed))
            losses["gptshake"].append(gptshake(options.text, seed, options.set))
            print(f"seed {seed}: nanoGPT {losses['nanoGPT'][-1]:.4f}, gptshake {losses['gptshake'][-1]:.4f}", flush=True)
    means = {name: statistics.fmean(values) for name, values in losses.items()}
    spread = {name: statistics.stdev(values) if len(values) > 1 else math.nan for name, values in losses.items()}
    for name, mean in means.items():
        print(f"{name:<10}{mean:.4f} nats per character over {len(val) - 1:,} characters, sd between seeds {spread[name]:.4f}")
    print(f"gptshake is {100 * (1 - means['gptshake'] / means['nanoGPT']):.1f} % below nanoGPT")
    if options.json:
        report: dict[str, Any] = {"losses": losses, "means": means, "characters": len(val)}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
