"""``task.rolling=true`` against lm-evaluation-harness on the exported folder; ``nox --session lm_eval`` installs it beside and runs this."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lm_eval
PYTHON = Path(sys.prefix) / "lm-eval" / "bin" / "python"
TEXTS = [
    "the of and to in a is that " * 9,
    "it was",
    "for on are as with his they at\n\nbe this  from have ",
    "or by one had not but what all the " * 40,
]
TASK = """\
task: rolling
dataset_path: json
dataset_kwargs: {data_files: {test: TEXTS}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
def test_word_and_byte_perplexity_are_those_of_lm_evaluation_harness(
    commands: Any, small: tuple[str, ...], tmp_path: Path, tokenizer: str
) -> None:
    if not PYTHON.exists():
        pytest.skip("lm-evaluation-harness is not installed: nox --session lm_eval")
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    (tmp_path / "rolling.yaml").write_text(TASK.replace("TEXTS", str(texts)))
    steps = (
        "trainer.max_steps=40",
        "optimizer.lr=1e-2",
        f"tokenizer={tokenizer}",
        *(["tokenizer.vocab_size=300"] if tokenizer == "bpe" else []),
    )
    for argv in ((*small, *steps), ("task=export", "task.run=latest", "task.folder=hf")):
        done = commands(tmp_path, *argv)
        assert done.code == 0, done.err
    done = commands(
        tmp_path, "task=evaluate", "task.run=latest", "data=text", f"data.path={texts}", "task.rolling=true", "task.json=ours.json"
    )
    assert done.code == 0, done.err
    (ours,) = json.loads((tmp_path / "ours.json").read_text())
    argv = ["--model", "hf", "--model_args", f"pretrained={tmp_path / 'hf'}", "--tasks", "rolling", "--include_path", str(tmp_path)]
    argv += ["--device", "cpu", "--output_path", str(tmp_path / "theirs.json")]
    subprocess.run([PYTHON, "-m", "lm_eval", *argv], cwd=tmp_path, check=True, capture_output=True, text=True)
    (file,) = tmp_path.glob("theirs*.json")
    theirs = json.loads(file.read_text())["results"]["rolling"]
    for name in ("word_perplexity", "byte_perplexity"):
        assert ours[name] == pytest.approx(theirs[f"{name},none"], rel=1e-4), name
    # No line break is in the training text of the characters: what such a token hides is charged here, not there.
    assert ours["unknown"] == (2 if tokenizer == "char" else 0)
    assert ours["bpb"] == pytest.approx(theirs["bits_per_byte,none"] + ours["unknown"] * math.log2(1_114_112) / ours["bytes"], rel=1e-4)
