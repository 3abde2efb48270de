"""Encoding: the same bytes for any number of processes, and after any end of a process before its time."""

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptshake.data import encode as encode_module
from gptshake.data.corpus import Corpus, open_corpus
from gptshake.data.encode import encode
from gptshake.data.split import by_documents
from gptshake.errors import GptshakeError
from gptshake.tokenizer.char import CharTrainer

TEXTS = {f"d{number}": f"Document {number}: " + "abcdefg水é"[number % 9] * (number * 37 % 91) for number in range(300)}


@pytest.fixture
def corpus(tmp_path: Path, memory: Any) -> Corpus:
    return open_corpus(memory(TEXTS), tmp_path / "cache", print)


@pytest.fixture
def cut(corpus: Corpus) -> dict[str, Any]:
    return by_documents(corpus.hashes, corpus.characters, 0.1, 0.1)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


def encoded(folder: Path, corpus: Corpus, cut: Any, **options: Any) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    encode(folder, corpus, cut, CharTrainer().train(TEXTS.values()), print, **options)
    return files(folder)


@pytest.mark.parametrize("size", [1, 200, 1000, 1 << 24])
def test_the_bytes_do_not_depend_on_processes_or_shards(
    size: int, tmp_path: Path, corpus: Corpus, cut: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = encoded(tmp_path / "whole", corpus, cut, processes=1)
    monkeypatch.setattr(encode_module, "SHARD", size)
    for processes in (1, 3) if size > 1 else (1,):
        assert encoded(tmp_path / f"{size}-{processes}", corpus, cut, processes=processes) == expected


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), size=st.integers(1, 60))
def test_shards_are_all_spans_in_order_and_of_bounded_length(lengths: list[int], size: int, tmp_path: Path) -> None:
    spans = np.array([[number, 0, length] for number, length in enumerate(lengths)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode_module, "SHARD", size)
        shards = list(encode_module.shards_of(tmp_path, "train", spans))
    assert np.array_equal(np.concatenate([shard.spans for shard in shards]), spans)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert all(shard.spans[:-1, 2].sum() < size for shard in shards)


def test_an_empty_split_has_no_tokens(tmp_path: Path, corpus: Corpus, cut: Any) -> None:
    found = encode(tmp_path, corpus, {"train": cut["train"], "val": cut["val"][:0]}, CharTrainer().train(["a"]), print)
    assert found["val"].n_tokens == 0 and (tmp_path / "val.bin").read_bytes() == b""


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_module, "SHARD", 1500)


class Interrupted(BaseException):
    """As a kill would end the build, but within this process."""


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("parts", [0, 1, 5, 9])
def test_a_build_goes_on_after_the_whole_parts(
    parts: int, processes: int, tmp_path: Path, corpus: Corpus, cut: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = encoded(tmp_path / "whole", corpus, cut)
    _stop_after(parts, tmp_path / "stopped", corpus, cut, processes)
    done: list[str] = []
    work = encode_module.encode_shard
    monkeypatch.setattr(encode_module, "encode_shard", lambda shard, *rest: done.append(shard.folder.name) or work(shard, *rest))  # type: ignore[func-returns-value]
    assert encoded(tmp_path / "stopped", corpus, cut) == expected
    left = len(list((tmp_path / "whole" / "parts").iterdir())) - parts
    assert left - processes <= len(done) <= left


def _stop_after(parts: int, folder: Path, corpus: Corpus, cut: Any, processes: int = 1) -> None:
    """Interrupt a build after it has noted that many parts."""
    work = encode_module._encoded

    def stop(*arguments: Any) -> Any:
        yield from islice(work(*arguments), parts)
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(encode_module, "_encoded", stop)
        encoded(folder, corpus, cut, processes=processes)


def _flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "missing", "other starts", "no number", "torn json", "no counts", "a list"])
def test_what_is_not_whole_is_done_again(damage: str, tmp_path: Path, corpus: Corpus, cut: Any) -> None:
    expected = encoded(tmp_path / "whole", corpus, cut)
    folder = tmp_path / "stopped"
    _stop_after(6, folder, corpus, cut)
    part = folder / "parts" / "train-2"
    damages = {
        "flipped": lambda: _flip(part / "ids", 400),
        "cut": lambda: os.truncate(part / "ids", 500),
        "longer": lambda: (part / "ids").open("ab").write(b"half a part"),
        "missing": lambda: (part / "ids").unlink(),
        "other starts": lambda: _flip(part / "starts.npy", -3),
        "no number": lambda: (part / "part.json").write_text("{}"),
        "torn json": lambda: (part / "part.json").write_text('{"n_to'),
        "no counts": lambda: (part / "part.json").unlink(),
        "a list": lambda: (part / "part.json").write_text("[]"),
    }
    damages[damage]()
    (folder / "train.bin").write_bytes(b"of an earlier version")
    assert encoded(folder, corpus, cut) == expected


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_process_that_dies_is_one_sentence_and_the_rest_is_kept(
    signum: int, tmp_path: Path, corpus: Corpus, cut: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = encoded(tmp_path / "whole", corpus, cut)
    work = encode_module.encode_shard
    with monkeypatch.context() as patch:
        patch.setattr(
            encode_module, "encode_shard", lambda shard, *rest: os.kill(os.getpid(), signum) if shard.number == 4 else work(shard, *rest)
        )
        with pytest.raises(GptshakeError, match=f"ended early: .*{signal.Signals(signum).name}.*the same command resumes"):
            encoded(tmp_path / "broken", corpus, cut, processes=2)
    assert encoded(tmp_path / "broken", corpus, cut, processes=2) == expected


@pytest.mark.usefixtures("small_shards")
def test_an_error_of_a_process_is_told(tmp_path: Path, corpus: Corpus, cut: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(encode_module, "encode_shard", refuse)
    with pytest.raises(GptshakeError, match=r"ended early: MemoryError: too large\. What is done is kept"):
        encoded(tmp_path / "broken", corpus, cut, processes=2)


SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
from gptshake.data import encode as e, store
from gptshake.data.source.files import TextFiles
from gptshake.signals import SIGNALS
from gptshake.tokenizer.char import CharTokenizer, CharTrainer

texts, cache, moment, processes = sys.argv[1:]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
e.SHARD, e.FEW_BYTES = 2000, 0 if int(processes) > 1 else 1 << 30
e.logical_cores = lambda: int(processes)

def after(module, name, calls):
    was, seen = getattr(module, name), []
    def replaced(*arguments, **more):
        seen.append(1)
        result = was(*arguments, **more)
        if len(seen) == calls:
            die()
        return result
    setattr(module, name, replaced)

def slow(self, text):
    (Path(cache) / f"{os.getpid()}.pid").touch()
    time.sleep(0.02)
    return encode(self, text)

if moment == "slow":
    encode, CharTokenizer.encode = CharTokenizer.encode, slow
elif moment.startswith("encoded:"):
    was = e._encoded
    def stopping(*arguments):
        for number, shard in enumerate(was(*arguments), 1):
            yield shard
            if number == int(moment[8:]):
                die()
    e._encoded = stopping
elif moment != "never":
    module, name, calls = moment.split(":")
    after({"encode": e, "store": store}[module], name, int(calls))
SIGNALS.install()
found = store.open_store(TextFiles(texts), CharTrainer(), store.SplitRule("documents", 0.1, 0.1), cache=Path(cache), say=print)
print(found.key)
"""
MOMENTS = [
    *("encoded:1", "encoded:4", "encode:_join:1", "encode:_join:2"),
    *("store:encode:1", "store:checksums:2", "store:entropies:1", "store:_write:1"),
]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def start(texts: Path, cache: Path, moment: str, processes: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(texts), str(cache), moment, str(processes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def store_files(cache: Path) -> dict[str, bytes]:
    (folder,) = [path for path in (cache / "stores").iterdir() if path.is_dir()]
    assert not folder.name.startswith("."), "a folder that looks like a build was left"
    assert all(path.is_file() for path in folder.iterdir()), "what only a build needs was left"
    return files(folder)


@pytest.mark.parametrize("processes", [1, 2])
def test_kill_9_at_any_moment_ends_in_the_same_store(processes: int, texts: Path, tmp_path: Path) -> None:
    finish(start(texts, tmp_path / "expected", "never", processes))
    expected = store_files(tmp_path / "expected")
    assert {"manifest.json", "train.bin", "val.documents.npy"} < set(expected) and "begun.json" not in expected
    for moment in MOMENTS:
        process = start(texts, tmp_path / moment, moment, processes)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, moment
        hidden = [path.name for path in (tmp_path / moment / "stores").iterdir() if path.is_dir()]
        assert hidden and all(name.startswith(".") for name in hidden), moment
        finish(start(texts, tmp_path / moment, "never", 3 - processes))
        assert store_files(tmp_path / moment) == expected, moment


def test_a_builder_killed_again_and_again_gets_there(texts: Path, tmp_path: Path) -> None:
    finish(start(texts, tmp_path / "expected", "never", 1))
    for _ in range(3):  # each time at most three of the ten shards: one is reported, and two children may still end theirs
        process = start(texts, tmp_path / "killed", "encoded:1", 2)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    said = finish(start(texts, tmp_path / "killed", "never", 2))
    assert "resuming the tokenization of an earlier process" in said
    assert store_files(tmp_path / "killed") == store_files(tmp_path / "expected")


def gone(cache: Path, seconds: float = 10.0) -> bool:
    """Whether all processes that encoded are gone by then."""
    until = time.monotonic() + seconds
    pids = [int(file.stem) for file in cache.glob("*.pid")]
    assert pids
    while any(_lives(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(_lives(pid) for pid in pids)


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def at_work(texts: Path, cache: Path) -> subprocess.Popen[str]:
    cache.mkdir()
    process = start(texts, cache, "slow", 2)
    until = time.monotonic() + 20
    while len(list(cache.glob("*.pid"))) < 2:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.02)
    return process


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_goes_on_without_its_caller(signum: int, texts: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = at_work(texts, cache)
    process.send_signal(signum)
    process.communicate(timeout=20)
    assert process.returncode != 0
    assert gone(cache)
    finish(start(texts, cache, "never", 2))
    finish(start(texts, tmp_path / "expected", "never", 1))
    assert store_files(cache) == store_files(tmp_path / "expected")


def test_one_builds_with_many_processes_and_others_wait(texts: Path, tmp_path: Path) -> None:
    waiting = at_work(texts, tmp_path / "cache"), start(texts, tmp_path / "cache", "never", 2)
    first, second = (finish(process) for process in waiting)
    assert "another process is building texts; waiting" in second
    assert "building the token store" in first and "building the token store" not in second
    assert first.splitlines()[-1] == second.splitlines()[-1]


def test_a_caller_that_has_used_torchs_threads_is_forked_without_a_hang(texts: Path, tmp_path: Path) -> None:
    used = "import torch; torch.set_num_threads(2); torch.randn(600, 600) @ torch.randn(600, 600)\n"
    command = [sys.executable, "-c", used + SCRIPT, str(texts), str(tmp_path / "threads"), "never", "2"]
    subprocess.run(command, check=True, timeout=60, env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True)
    finish(start(texts, tmp_path / "plain", "never", 1))
    assert store_files(tmp_path / "threads") == store_files(tmp_path / "plain")
