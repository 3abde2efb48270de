"""Whether a corpus of any size is practical: a synthetic one through source, corpus and token store, beside one of 10 MB.

Each size is built in a fresh process with an empty cache. Told for every stage are MB/s of text, and per core where all cores
work; the most memory that the builder and any one of its helpers had (a helper's figure counts pages it shares); and what a
training batch of 16 x 256 costs from either store. The text is that of ``data_speed.py`` as JSON lines, written once.

    python benchmarks/data_scale.py [--megabytes N] [--tokenizer char|bpe] [--json FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from data_speed import BATCH, BLOCK, seconds, texts

SMALL = 10  # megabytes
MORE_MEMORY = 300  # megabytes that a large corpus may need more than the small one


def build(source: Path, cache: Path, tokenizer: str) -> dict[str, float]:
    """Build a store in this process; gives seconds of its stages and what a batch costs."""
    from gptshake.data.corpus import open_corpus
    from gptshake.data.source.files import TextFiles
    from gptshake.data.split import SplitRule, by_documents
    from gptshake.data.store import open_store
    from gptshake.tokenizer.bpe import BPETrainer
    from gptshake.tokenizer.cache import cached_tokenizer
    from gptshake.tokenizer.char import CharTrainer

    def say(line: str) -> None:
        print(f"    {line}", file=sys.stderr, flush=True)

    rule: dict[str, Any] = {"split": "documents", "val_fraction": 0.01, "test_fraction": 0.01}

    def store() -> Any:
        return open_store(files, trainer, SplitRule(**rule), cache=cache, say=say)

    found: dict[str, float] = {}
    began = time.perf_counter()
    files = TextFiles(str(source))
    corpus = open_corpus(files, cache, say)
    found["read_s"] = time.perf_counter() - began
    trainer: Any = CharTrainer() if tokenizer == "char" else BPETrainer(vocab_size=8192)
    train = by_documents(corpus.hashes, corpus.characters, rule["val_fraction"], rule["test_fraction"])["train"]
    began = time.perf_counter()
    cached_tokenizer(
        trainer, {"source": files.fingerprint(), **rule}, lambda: (text for _, text in corpus.texts(train)), cache, say
    )  # the store will find it
    found["tokenizer_s"] = time.perf_counter() - began
    began = time.perf_counter()
    opened = store()
    found["store_s"] = time.perf_counter() - began
    began = time.perf_counter()
    store()
    found["open_s"] = time.perf_counter() - began
    found["builder_mb"] = _peak("/proc/self/status")
    found["tokens"] = opened.train.n_tokens

    from gptshake.data.module import TrainBatches

    batches = iter(TrainBatches(opened.train.tokens(), BLOCK, BATCH, seed=0))
    seconds(lambda: next(batches), 2000)  # the pages of a small store are all in memory, too
    found["batch_us"] = 1e6 * min(seconds(lambda: next(batches), 2000) for _ in range(5))
    return found


def _peak(status: str) -> float:
    """The most memory a process has had, in MB; 0 if it is gone."""
    try:
        lines = Path(status).read_text().splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
    except OSError:
        return 0.0


def _descendants(pid: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, more = set[int](), {pid}
    while more:
        found |= more
        more = {child for child, parent in parents.items() if parent in found} - found
    return found - {pid}


def measure(megabytes: int, tokenizer: str) -> dict[str, float]:
    """One size in a process of its own, its helpers watched from here."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "text.jsonl"
        with source.open("w") as file:
            for text in texts(megabytes):
                file.write(json.dumps({"text": text}) + "\n")
        command = [sys.executable, __file__, "--build", str(source), name, tokenizer]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        helpers: dict[int, float] = {}
        watcher = threading.Thread(target=_watch, args=(process, helpers))
        watcher.start()
        output = process.communicate()[0]
        watcher.join()
        if process.returncode:
            raise SystemExit(f"the builder ended with code {process.returncode}")
        return json.loads(output) | {"helper_mb": max(helpers.values(), default=0.0), "megabytes": megabytes}


def _watch(process: subprocess.Popen[str], helpers: dict[int, float]) -> None:
    while process.poll() is None:
        for pid in _descendants(process.pid):
            helpers[pid] = max(helpers.get(pid, 0.0), _peak(f"/proc/{pid}/status"))
        time.sleep(0.1)


def main() -> None:
    if sys.argv[1:2] == ["--build"]:
        source, cache, tokenizer = sys.argv[2:]
        print(json.dumps(build(Path(source), Path(cache), tokenizer)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--tokenizer", choices=("char", "bpe"), default="char")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    from gptshake.hardware import logical_cores

    cores = logical_cores()
    small, large = (measure(size, arguments.tokenizer) for size in (SMALL, arguments.megabytes))
    print(f"{arguments.tokenizer}, {cores} cores")
    for found in (small, large):
        size, encoding = found["megabytes"], found["store_s"]
        print(
            f"{size:6,} MB: read {size / found['read_s']:6.1f} MB/s | tokenizer {size / found['tokenizer_s']:6.1f} MB/s | encode and check "
            f"{size / encoding:6.1f} MB/s, {size / encoding / cores:.1f} per core | opened in {found['open_s']:.2f} s"
        )
        print(
            f"{'':11}memory: builder {found['builder_mb']:.0f} MB, a helper {found['helper_mb']:.0f} MB | a batch {found['batch_us']:.1f} us"
        )
    more = max(large["builder_mb"] - small["builder_mb"], large["helper_mb"] - small["builder_mb"])
    print(
        f"the large one needed {more:.0f} MB more memory (target: within {MORE_MEMORY}); a batch cost {large['batch_us'] / small['batch_us']:.2f} x"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps({"cores": cores, "small": small, "large": large}, indent=2) + "\n")


if __name__ == "__main__":
    main()
