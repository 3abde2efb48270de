"""Any tokenizer with any data, a run's tokenizer in another run, and a run that goes on when the tokenizer it was given is gone."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from gptshake.tokenizer.protocol import load_tokenizer

BPE = ("tokenizer=bpe", "tokenizer.vocab_size=300")


@pytest.mark.parametrize("kind", ["byte", "bpe", "hf_bpe", "sentencepiece"])
def test_a_model_learns_tokens_of_any_kind(kind: str, commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    size = () if kind == "byte" else ("tokenizer.vocab_size=300",)
    done = commands(tmp_path, *small, f"tokenizer={kind}", *size, "trainer.max_steps=2")
    assert done.code == 0, done.err
    record = the_run(tmp_path)
    tokenizer = load_tokenizer(record.path / "tokenizer")
    assert (tokenizer.name, tokenizer.digest, tokenizer.vocab_size) == (
        kind,
        record.info["data"]["tokenizer"],
        record.info["data"]["vocab_size"],
    )


@pytest.fixture(scope="module")
def parent(commands: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent")
    assert commands(folder, *small, *BPE).code == 0
    return folder


def test_a_run_takes_the_tokenizer_of_another(commands: Any, small: Any, parent: Path, tmp_path: Path, the_run: Any) -> None:
    origin = the_run(parent)
    (tmp_path / "other.txt").write_text("quite another text, with other words in it. " * 300)
    words = (*small, "data.path=other.txt", "tokenizer=bpe", f"tokenizer.path={origin.path}", f"init_from={origin.path}")
    done = commands(tmp_path, *words, "trainer.max_steps=2")
    assert done.code == 0, done.err
    record = the_run(tmp_path)
    assert record.info["data"]["tokenizer"] == origin.info["data"]["tokenizer"]
    assert str(origin.path.name) not in record.path.name


def test_a_run_is_named_by_its_id(commands: Any, small: Any, parent: Path, the_run: Any) -> None:
    origin = the_run(parent)
    done = commands(parent, *small, "tokenizer=bpe", f"tokenizer.path={origin.info['id']}", "trainer.max_steps=2", "paths.run_dir=again")
    assert done.code == 0, done.err


def test_a_run_goes_on_with_its_own_copy(commands: Any, small: Any, parent: Path, tmp_path: Path, the_run: Any) -> None:
    shutil.copytree(the_run(parent).path / "tokenizer", tmp_path / "given")
    words = (*small, "tokenizer=bpe", "tokenizer.path=given")
    assert commands(tmp_path, *words, "trainer.max_steps=4", "scheduler=constant").code == 0
    shutil.rmtree(tmp_path / "given")
    done = commands(tmp_path, f"resume={the_run(tmp_path).path}", "trainer.max_steps=8")
    assert done.code == 0, done.err
    assert the_run(tmp_path).steps[-1] == 8


def test_another_kind_than_the_option_is_refused(commands: Any, small: Any, parent: Path, tmp_path: Path, the_run: Any) -> None:
    done = commands(tmp_path, *small, f"tokenizer.path={the_run(parent).path}")
    assert done.code == 2 and "holds the kind bpe, not char: use tokenizer=bpe." in done.error


def test_bits_per_byte_charge_unknown_tokens_and_a_run_of_an_earlier_version_goes_on_by_its_rule(
    commands: Any, small: Any, tmp_path: Path, the_run: Any
) -> None:
    words = (*small, "tokenizer.vocab_size=12", "scheduler=constant", "trainer.max_steps=4", "trainer.limit_val_batches=null")
    done = commands(tmp_path, *words)
    assert done.code == 0, done.err
    assert "% of the tokens of val are unknown to the tokenizer: raise tokenizer.vocab_size" in done.out
    assert re.search(r"val loss \d\.\d\d: (better|worse) than \w+ \d\.\d\d", done.out)
    record = the_run(tmp_path)
    told, data = record.info["summary"], record.info["data"]
    for split in ("val", "test"):
        assert 0.05 < data["unknown"][split]["share"] < 0.5 and data["unknown"][split]["nats_per_token"] > 0.05
        nats = told[f"{split}/loss"] + data["unknown"][split]["nats_per_token"]
        assert told[f"{split}/bpb"] == pytest.approx(nats / math.log(2))  # letters of one byte
    del record.info["data"]["unknown"]
    (record.path / "run.json").write_text(json.dumps(record.info))
    assert commands(tmp_path, f"resume={record.path}", "trainer.max_steps=8").code == 0
    told = the_run(tmp_path).info["summary"]
    assert told["val/bpb"] == pytest.approx(told["val/loss"] / math.log(2)) and told["test/bpb"] == pytest.approx(
        told["test/loss"] / math.log(2)
    )
    listed = commands(tmp_path, "task=runs").out
    assert f"{told['val/bpb']:.4f}*" in listed and "* bits per byte by the old rule" in listed
