"""Makes ``records.tar.xz``: records as the code before the redesign wrote them, which every later version must read.

Made with commit 6fcb7a2 by

    git worktree add /tmp/before 6fcb7a2
    .venv/bin/python tests/old_records/make.py /tmp/before

The argument is a clean checkout of the commit whose code writes the records. All commands run in ``HOME``, so that no record holds
another absolute path; ``test_old_records.py`` puts the folder it unpacks to in its place. Pictures of runs are left out for their size.
"""

import importlib.util
import json
import os
import pkgutil
import platform
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
HOME = Path("/tmp/gptshake-old-records")
CACHE = "cache"  # beside it lies cache.key, with which the records are sealed: of this folder alone, and part of the set
TEXT = "the of and to in a is that it was for on are as with his they at be this from have or by one had not but what all"
MODEL = ("model.n_layer=1", "model.n_head=1", "model.n_embd=8", "model.block_size=16")
SMALL = (
    *("data.batch_size=4", "data.micro_batch_size=2", "trainer=cpu", "trainer.threads=1", "trainer.precision=32-true"),
    *("trainer.max_steps=8", "trainer.val_check_interval=4", "trainer.limit_val_batches=2", "data.test_fraction=0", "logger=none"),
    *("callbacks.samples.n_tokens=20", "callbacks.samples.times=2", "~callbacks.plots"),  # pictures are slow
)
BOOK = ("data=text_char", "data.path=book.txt")
TINY = ("model=tiny", *MODEL, *BOOK, *SMALL)
SWEPT = (*TINY, "hydra.sweeper.executor.slots=1", "hydra.sweeper.executor.threads=1")
SEARCH = ("-m", *SWEPT, "trainer.max_steps=40", "trainer.val_check_interval=10", "optimizer.lr=range", "hydra.sweeper.n_trials=4")
STOPPED = {  # name -> what was typed; each is stopped in its sixth step, and its metrics when left alone are kept beside it
    "stopped": (*TINY, "model.dropout=0.2", "scheduler=cosine"),
    "old_names": (
        *("model=tiny", *MODEL, "data=text_bpe", "data.path=book.txt", "tokenizer.vocab_size=270", *SMALL, "scheduler=one_cycle"),
        *("callbacks=noise_scale", "callbacks.noise_scale.split_every=2", "callbacks.progress.every_s=5"),
        "~callbacks.advice",
    ),
    "without_samples": (
        *("model=baby", *MODEL, "data=text_byte", "data.path=texts", *(word for word in SMALL if "samples" not in word)),
        *("~callbacks.samples", "scheduler=linear", "optimizer=sgd", "optimizer.lr=0.1", "data.offset=random"),
    ),
}
FINISHED = {
    "char": (*TINY, "model.dropout=0.2", "scheduler=cosine", "note=a first try, with 'quotes' & <signs>"),
    "byte": ("model=baby", *MODEL, "data=text_byte", "data.path=texts", *SMALL, "scheduler=gpt3", "seed=7"),
    "bpe": ("model=gpt_mini_v0", *MODEL, "data=text_bpe", f"data.path={HOME}/book.txt", "tokenizer.vocab_size=270", *SMALL),
    "hf_bpe": ("model=mini_v1", *MODEL, "data=text", "tokenizer=hf_bpe", "tokenizer.vocab_size=270", "data.path=book.txt", *SMALL),
    "sentencepiece": (
        *("model=gpt3_small", *MODEL, "data=text_sentencepiece", "data.path=book.txt", "tokenizer.vocab_size=300", *SMALL),
        *("scheduler=constant",),
    ),
    "gpt2": (
        *("model=gpt3_xl", *MODEL, "model.n_embd=1", "data=text_gpt2", "data.path=book.txt", *SMALL, "optimizer=sgd", "optimizer.lr=0.1"),
        *("optimizer.momentum=0", "trainer.max_steps=2", "trainer.val_check_interval=2"),
    ),
}
IN_SIXTH_STEP = """
import os
from gptshake.training.module import GPTModule
def training_step(self, batch, number, own=GPTModule.training_step):
    loss = own(self, batch, number)
    if (self.steps, self.micro_batches) == (5, 1):
        os.kill(os.getpid(), {signum})
    return loss
GPTModule.training_step = training_step
"""


def module(path: Path) -> ModuleType:
    """A file of the tests as a module."""
    name = f"{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


def write_texts() -> None:
    """One text of 12 kB, and a folder of 30 small ones."""
    draw = random.Random(1)
    words = [*TEXT.split(), "naïve", "Über", "日本"]
    HOME.mkdir()
    (HOME / "texts").mkdir()
    (HOME / "book.txt").write_text(" ".join(draw.choice(words) for _ in range(3000)), encoding="utf-8")
    for number in range(30):
        (HOME / "texts" / f"{number:02}.txt").write_text(" ".join(draw.choice(words) for _ in range(60)), encoding="utf-8")


class Maker:
    """Runs commands in ``HOME`` with the code of a checkout, and remembers which run is which."""

    def __init__(self, checkout: Path) -> None:
        conftest = module(HERE.parent / "conftest.py")
        os.environ |= {"PYTHONPATH": str(checkout / "src"), "GPTSHAKE_CACHE": str(HOME / CACHE)}
        package = [str(checkout / "src/gptshake")]
        names = [name for _, name, _ in pkgutil.walk_packages(package, "gptshake.") if "." not in name.removeprefix("gptshake.")]
        self.commands = conftest.Commands(*(name for name in names if name != "gptshake.__main__"), "gptshake.__main__")
        self.runs: dict[str, str] = {}

    def __call__(self, *words: str, code: int = 0, before: str = "") -> Any:
        done = self.commands(HOME, *words, before=before)
        print(f"{done.code} {' '.join(words)[:150]}", flush=True)
        assert done.code == code, done.out + done.err
        return done

    def run(self, name: str, *words: str, code: int = 0, before: str = "") -> Path:
        """Run a command that makes one new run, and give that its name in the index."""
        known = set((HOME / "runs").glob("*"))
        self(*words, code=code, before=before)
        (path,) = set((HOME / "runs").glob("*")) - known
        self.runs[name] = str(path.relative_to(HOME))
        return path


def make_runs(make: Maker) -> None:
    (HOME / "expected").mkdir()
    for name, words in STOPPED.items():
        twin = make.run("twin", *words)
        shutil.copy(twin / "metrics.csv", HOME / "expected" / f"{name}.csv")
        shutil.rmtree(twin)
        make.run(name, *words, code=143, before=IN_SIXTH_STEP.format(signum=int(signal.SIGTERM)))
    shutil.copy(HOME / "expected/stopped.csv", HOME / "expected/killed.csv")
    make.run("killed", *STOPPED["stopped"], code=-9, before=IN_SIXTH_STEP.format(signum=int(signal.SIGKILL)))
    for name, words in FINISHED.items():
        make.run(name, *words)
    make.run("child", *TINY, f"init_from={make.runs['char'].removeprefix('runs/')}", "optimizer.lr=1e-3")
    del make.runs["twin"]


def make_studies(make: Maker) -> None:
    make("-m", *SWEPT, "optimizer.lr=1e-3,3e-3,1e-2", "repeats=2", "study=rates")
    make("-m", *SWEPT, "ablate=[scheduler=one_cycle,model.dropout=0.1]", "study=changes")
    make(*SEARCH, "study=search")
    stopped = make.commands.start(HOME, *SEARCH, "study=search-stopped")
    metrics = HOME / "multirun/search-stopped/1/metrics.csv"
    while not (metrics.exists() and metrics.stat().st_size > 1500):
        time.sleep(0.005)
    stopped.signal(signal.SIGINT)
    assert stopped.wait().code == 130
    rows = json.loads((HOME / "multirun/search-stopped/study.json").read_text())
    assert [trial["state"] for trial in rows["trials"]][:1] == ["ok"] and rows["state"] == "stopped", rows["trials"]
    print(f"stopped after {[trial['state'] for trial in rows['trials']]}")


def make_finders(make: Maker) -> None:
    make.run("range_test", "task=find_lr", *TINY, "task.range_test=true", "task.confirm=0", "task.steps=40", "task.repeats=1")
    make.run("find_lr", "task=find_lr", *TINY, "task.confirm=3", "task.confirm_steps=8")


def make_journal(make: Maker) -> None:
    """A journal with prose before, between and after its blocks, and one run and one sweep that it does not tell of yet."""
    make("task=note", f"task.run={make.runs['char']}", "task.text=TODO three seeds")
    make("task=note", "task.run=rates", "task.text=it's #1, (really)! a=b")
    make("task=journal")
    file = HOME / "JOURNAL.md"
    text = file.read_text(encoding="utf-8")
    head, mark, rest = text.partition("<!-- gptshake:end ")
    line, newline, rest = rest.partition("\n")
    text = f"{head}{mark}{line}{newline}\nProse between: 日本, `code` and a trailing blank \n\n- [ ] a box of mine\n{rest}"
    file.write_text(f"Prose above.\n\n{text}\nProse below, without a line end", encoding="utf-8")
    make.run("later", *TINY, "optimizer.lr=2e-3", "note=made after the journal")


def samples(make: Maker) -> dict[str, str]:
    """What the finished runs write: run -> text."""
    words = ("task=sample", "task.n_tokens=30", "task.prompt=the ", "trainer=cpu", "trainer.threads=1")
    return {name: make(*words, f"task.run={make.runs[name]}").out for name in FINISHED}


def pack(checkout: Path, runs: dict[str, str], texts: dict[str, str]) -> None:
    """Write the index and the archive."""
    for file in [*HOME.glob("runs/**/*"), *HOME.glob("multirun/**/*")]:
        if file.suffix in (".png", ".svg", ".html"):
            file.unlink()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()
    made_with = module(HERE.parent / "end_to_end/conftest.py").kind()
    index = {"commit": commit, "made_with": made_with, "runs": runs, "samples": texts}
    index |= {"words": TINY, "search": SEARCH}
    (HOME / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    for file in HOME.glob("*/**/run.json"):  # names of this machine are nobody's business
        file.write_text(file.read_text().replace(platform.platform(), "Linux-x86_64"))
    shutil.rmtree(HOME / CACHE, ignore_errors=True)

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(HERE / "records.tar.xz", "w:xz", preset=9) as archive:
        for file in sorted(HOME.rglob("*"), key=lambda file: (file.suffix, file.name, file)):
            if file.is_file():
                archive.add(file, file.relative_to(HOME), filter=plain)
    print(f"{(HERE / 'records.tar.xz').stat().st_size / 1000:.0f} kB, commit {commit}")


def main() -> None:
    checkout = Path(sys.argv[1]).absolute()
    shutil.rmtree(HOME, ignore_errors=True)
    write_texts()
    make = Maker(checkout)
    make_runs(make)
    make_studies(make)
    make_finders(make)
    make_journal(make)
    texts = samples(make)
    make.commands.close()
    pack(checkout, make.runs, texts)


if __name__ == "__main__":
    main()
