"""``task=sample`` writes while it draws: whole characters, safe on a terminal, unchanged to a file."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from omegaconf import OmegaConf

from gptshake.errors import ConfigError, DataError
from gptshake.model.gpt import GPT
from gptshake.setup import instantiate
from gptshake.tasks import sample
from gptshake.tokenizer.byte import ByteTokenizer


class Stream(io.StringIO):
    """Keeps what was flushed, as a terminal shows it."""

    def __init__(self, terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__(newline="")
        self.terminal, self.named, self.shown = terminal, encoding, list[str]()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.named

    def isatty(self) -> bool:
        return self.terminal

    def flush(self) -> None:
        if not self.shown or self.getvalue() != self.shown[-1]:
            self.shown.append(self.getvalue())


def written(monkeypatch: pytest.MonkeyPatch, stream: Stream, prompt: str | None, **options: Any) -> list[str]:
    """What the stream had shown after each flush; the network writes bytes at random, control characters among them."""
    torch.manual_seed(0)
    model = GPT(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=257)
    monkeypatch.setattr(instantiate, "chosen_run", lambda cfg: Path())
    monkeypatch.setattr(instantiate, "trained", lambda path, again: (model, ByteTokenizer()))
    monkeypatch.setattr("sys.stdout", stream)
    task = (
        {"prompt": prompt, "prompt_file": None, "interactive": False, "n_tokens": 200, "num_samples": 1, "temperature": 1.0}
        | {"run": "latest", "top_k": None, "top_p": None, "repetition_penalty": 1.0, "stop": None, "jsonl": None}
        | options
    )
    cfg = OmegaConf.create({"task": task, "seed": 3, "trainer": {"accelerator": "cpu"}})
    sample.run(cast(Any, SimpleNamespace(config=cfg, spec=SimpleNamespace(overrides=[]))))
    return stream.shown


def test_a_file_gets_the_text_as_it_was_drawn_and_a_terminal_nothing_that_commands_it(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = written(monkeypatch, Stream(terminal=False), "水\x1b[31m")[-1]
    seen = written(monkeypatch, Stream(terminal=True), "水\x1b[31m")[-1]
    assert raw.startswith("水\x1b[31m") and raw.endswith("\n") and any(ord(letter) < 9 for letter in raw)
    assert seen.startswith("水\\x1b[31m")
    assert all(letter.isprintable() or letter in "\n\t" for letter in seen)


def test_text_is_shown_while_it_is_drawn_and_only_whole_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = written(monkeypatch, Stream(terminal=False), "水", n_tokens=120)
    assert shown[0] == "水" and len(shown) > 30
    assert all(shown[-1].startswith(part) for part in shown)


def test_an_encoding_that_knows_fewer_letters_and_no_prompt_are_no_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(monkeypatch, Stream(terminal=False, encoding="ascii"), "水")[-1]
    assert text.startswith("?") and text.isascii()
    two = written(monkeypatch, Stream(terminal=False), None, num_samples=2, n_tokens=5)[-1]
    assert two.startswith("\n\n") and two.count("\n---\n\n\n") == 1


def test_prompts_come_from_a_file_from_lines_of_json_or_from_the_standard_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("from a file", encoding="utf-8")
    (tmp_path / "many.jsonl").write_text('{"prompt": "one"}\n\n{"prompt": "two"}\n', encoding="utf-8")
    assert written(monkeypatch, Stream(terminal=False), None, prompt_file=str(tmp_path / "long.txt"))[-1].startswith("from a file")
    two = written(monkeypatch, Stream(terminal=False), None, prompt_file=str(tmp_path / "many.jsonl"), n_tokens=1)[-1]
    assert two.startswith("one") and "\n---\ntwo" in two
    monkeypatch.setattr("sys.stdin", io.StringIO("typed"))
    assert written(monkeypatch, Stream(terminal=False), None, prompt_file="-")[-1].startswith("typed")


@pytest.mark.parametrize(
    ("content", "where"),
    [(b"\xff\xfe", ""), (b"", ""), (b"\n \n", ""), (None, "")]
    + [(b'{"prompt": "a"}\n\n' + line, "Line 3 of ") for line in (b'{"prompt": 3}', b'["prompt"]', b"[" * 5000, b"{}", b"a")],
)
def test_a_file_without_prompts_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, where: str) -> None:
    if content is not None:
        (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=rf"{where}.*bad\.jsonl"):
        written(monkeypatch, Stream(terminal=False), None, prompt_file=str(tmp_path / "bad.jsonl"))


def test_json_lines_hold_each_continuation_and_its_seed_from_which_it_can_be_drawn_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written(monkeypatch, Stream(terminal=False), "水", num_samples=2, n_tokens=20, jsonl=str(tmp_path / "out.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    shown = written(monkeypatch, Stream(terminal=False), "水", num_samples=2, n_tokens=20)[-1]
    assert [line["seed"] for line in lines] == [3, 4] and {line["prompt"] for line in lines} == {"水"}
    assert "\n---\n".join(line["text"] for line in lines) + "\n" == shown


def test_what_was_written_as_json_lines_can_be_prompts_again_whatever_line_ends_a_text_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prompts, files = ["a\u2028b", "\x85", "\x0b\r\n", "\ud800"], [str(tmp_path / "new" / name) for name in ("first.jsonl", "second.jsonl")]
    (tmp_path / "given.jsonl").write_text("\r\n".join(json.dumps({"prompt": text}) for text in prompts), encoding="utf-8")
    for given, file in zip([str(tmp_path / "given.jsonl"), files[0]], files, strict=True):
        written(monkeypatch, Stream(terminal=False), None, prompt_file=given, jsonl=file, n_tokens=5)
    texts = [Path(file).read_text(encoding="utf-8") for file in files]
    assert texts[0] == texts[1] and [json.loads(line)["prompt"] for line in texts[0].split("\n")[:-1]] == prompts
    with pytest.raises(ConfigError, match=r"task\.jsonl=.* is a folder"):
        written(monkeypatch, Stream(terminal=False), "a", jsonl=str(tmp_path))


def test_a_conversation_goes_on_with_all_that_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\n"))
    talked = written(monkeypatch, Stream(terminal=False), None, interactive=True, n_tokens=5, temperature=0.0)[-1]
    first = written(monkeypatch, Stream(terminal=False), "a", n_tokens=5, temperature=0.0)[-1]
    whole = written(monkeypatch, Stream(terminal=False), f"{first}b", n_tokens=5, temperature=0.0)[-1]
    assert "\ufffd" in first or talked == first[1:] + whole[len(first) + 1 :]
