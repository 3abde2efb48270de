"""How fast text becomes tokens and tokens become batches, each beside what people would use instead.

Both sides of a row take turns in one process, so they see the same machine; figures are medians, ratios are medians of paired
rounds. The text is made by a seeded generator: words of a Zipf vocabulary, documents of 3 kB. Peers are written as the
documented shape of the idea: nanoGPT's ``get_batch`` opens a memory map and stacks random slices of it, its ``prepare`` looks up
every character in a dictionary; the old way is a Hugging Face data set with one row per block and a map-style loader.

    python benchmarks/data_speed.py [--rounds N] [--megabytes N] [--json FILE]
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

BATCH, BLOCK = 16, 256
TINY_BATCH, TINY_BLOCK = 12, 64  # of model=tiny's preset
Work = Callable[[], float]  # does it once; gives seconds per unit


def texts(megabytes: float, seed: int = 0) -> Iterator[str]:
    """Documents of 500 words whose frequencies follow Zipf's law."""
    draw = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = np.array(["".join(draw.choice(letters, draw.integers(1, 10))) for _ in range(30_000)])
    made = 0
    while made < megabytes * 1e6:
        text = " ".join(words[np.minimum(draw.zipf(1.2, 500), len(words)) - 1]) + ".\n"
        made += len(text)
        yield text


def seconds(function: Callable[[], Any], times: int = 1) -> float:
    began = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - began) / times


def compare(rounds: int, ours: Work, theirs: Work) -> dict[str, float]:
    """Medians of both and of their paired ratio (ours / theirs, of time); one round each is not counted."""
    pairs = [(ours(), theirs()) if number % 2 else (theirs(), ours())[::-1] for number in range(rounds + 1)][1:]
    return {
        "ours": statistics.median(pair[0] for pair in pairs),
        "theirs": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def characters(documents: list[str], rounds: int) -> dict[str, Any]:
    """A character tokenizer against a dictionary, in MB/s."""
    from gptshake.tokenizer.char import CharTrainer

    tokenizer = CharTrainer().train(documents)
    some = documents[: max(1, len(documents) // 4)]
    n, n_some = (sum(map(len, part)) for part in (documents, some))
    number_of = {character: number for number, character in enumerate(sorted(set("".join(documents))))}
    found = compare(
        rounds,
        lambda: seconds(lambda: [tokenizer.encode(text) for text in documents]) / n,
        lambda: seconds(lambda: [np.array([number_of[character] for character in text], np.uint16) for text in some]) / n_some,
    )
    return _as_speed(found, "a dictionary and a loop")


def byte_pairs(documents: list[str], rounds: int) -> dict[str, Any]:
    """Our byte-pair tokenizer, ids as the store takes them, against tiktoken alone on the same ranks, in MB/s."""
    import tiktoken

    from gptshake.tokenizer.bpe import BPETrainer

    tokenizer: Any = BPETrainer(vocab_size=8192).train(documents)
    peer = tiktoken.Encoding("peer", pat_str=tokenizer.pattern, mergeable_ranks=tokenizer.ranks, special_tokens={})
    assert all(peer.encode_ordinary(text) == tokenizer.encode(text).tolist() for text in documents[:50])
    n = sum(len(text) for text in documents)
    found = compare(
        rounds,
        lambda: seconds(lambda: [tokenizer.encode(text) for text in documents]) / n,
        lambda: seconds(lambda: [peer.encode_ordinary(text) for text in documents]) / n,
    )
    return _as_speed(found, "tiktoken.encode_ordinary")


def _as_speed(found: dict[str, float], peer: str) -> dict[str, Any]:
    return {
        "ours_mb_s": 1e-6 / found["ours"],
        "theirs_mb_s": 1e-6 / found["theirs"],
        "speed_ratio": 1 / found["ratio"],
        "peer": peer,
    }


def batches(folder: Path, documents: list[str], rounds: int) -> dict[str, Any]:
    """A batch of 16 x 256 from a file of ids, in us."""
    import torch

    from gptshake.data.module import TrainBatches
    from gptshake.tokenizer.char import CharTrainer

    ids = np.concatenate([CharTrainer().train(documents).encode(text) for text in documents])
    path = folder / "train.bin"
    ids.tofile(path)
    ours = iter(TrainBatches(np.memmap(path, "<u2", "r"), BLOCK, BATCH, seed=0))

    def own() -> Any:
        batch = next(ours)
        return batch[:, :-1], batch[:, 1:]

    def nanogpt() -> Any:
        data = np.memmap(path, dtype=np.uint16, mode="r")
        places = torch.randint(len(data) - BLOCK, (BATCH,))
        x = torch.stack([torch.from_numpy(data[i : i + BLOCK].astype(np.int64)) for i in places])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + BLOCK].astype(np.int64)) for i in places])
        return x, y

    found = compare(rounds, lambda: seconds(own, 320), lambda: seconds(nanogpt, 320))
    old = _old_way(folder, ids)
    return {
        "ours_us": 1e6 * found["ours"],
        "nanogpt_us": 1e6 * found["theirs"],
        "time_ratio": found["ratio"],
        **{f"old_way_{workers}_workers_us": 1e6 * value for workers, value in old.items()},
    }


def _old_way(folder: Path, ids: Any) -> dict[int, float]:
    """Seconds per batch from a data set with one row per block, by number of workers; the workers' start is not counted."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "hf"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    import datasets
    from torch.utils.data import DataLoader

    rows = ids[: len(ids) // (BLOCK + 1) * (BLOCK + 1)].reshape(-1, BLOCK + 1)[:4000].astype(np.int64)
    table = datasets.Dataset.from_dict({"input_ids": rows}).with_format("torch")
    found = {}
    for workers in (0, 2):
        loader = iter(DataLoader(table, batch_size=BATCH, shuffle=True, num_workers=workers))
        list(islice(loader, 20))
        found[workers] = seconds(lambda loader=loader: next(loader), 150)
    return found


def share_of_a_step(folder: Path, rounds: int) -> dict[str, Any]:
    """What fetching a batch is of a bare training step of model=tiny, in fp32."""
    import torch

    from gptshake.data.module import TrainBatches
    from gptshake.model.gpt import GPT

    model = GPT(n_layer=4, n_head=4, n_embd=128, block_size=TINY_BLOCK, dropout=0.0, vocab_size=281)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=True)
    ours = iter(TrainBatches(np.memmap(folder / "train.bin", "<u2", "r"), TINY_BLOCK, TINY_BATCH, seed=0))
    batch = next(ours).clamp(max=280)

    def step() -> None:
        model.loss(batch[:, :-1], batch[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()

    found = compare(rounds, lambda: seconds(lambda: next(ours), 200), lambda: seconds(step, 10))
    return {"batch_us": 1e6 * found["ours"], "step_ms": 1e3 * found["theirs"], "share": found["ratio"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--megabytes", type=float, default=4, help="text that is encoded in each round")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    documents = list(texts(arguments.megabytes))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for what, work, targets in (
            ("char encoding", lambda: characters(documents, arguments.rounds), {"ours_mb_s": ">= 100"}),
            ("bpe encoding", lambda: byte_pairs(documents, arguments.rounds), {"speed_ratio": ">= 0.9"}),
            ("batch 16 x 256", lambda: batches(Path(name), documents, arguments.rounds), {"ours_us": "<= 60", "time_ratio": "<= 1"}),
            ("share of a tiny step", lambda: share_of_a_step(Path(name), arguments.rounds), {"share": "< 0.01"}),
        ):
            results[what] = work()
            for key, value in results[what].items():
                shown = value if isinstance(value, str) else f"{value:,.4g}"
                print(f"{what:22} {key:24} {shown:>24}  {targets.get(key, '')}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
