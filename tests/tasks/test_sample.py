"""``task=sample`` writes while it draws: whole characters, safe on a terminal, unchanged to a file."""

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from omegaconf import OmegaConf

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
    monkeypatch.setattr(instantiate, "trained", lambda cfg, again: (model, ByteTokenizer()))
    monkeypatch.setattr("sys.stdout", stream)
    task = {"prompt": prompt, "n_tokens": 200, "num_samples": 1, "temperature": 1.0, "top_k": None, "top_p": None, "run": "x"} | options
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
