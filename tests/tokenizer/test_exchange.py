"""Tokenizers go out as tiktoken's ranks and as Hugging Face's tokenizer.json, and come back; no id changes on the way."""

import base64
import json
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptshake.errors import DataError
from gptshake.tokenizer.bpe import BPETrainer
from gptshake.tokenizer.exchange import export_hf, export_tiktoken, import_hf, import_tiktoken
from gptshake.tokenizer.protocol import load_tokenizer

from .conftest import TEXTS, tokenizer_of

KINDS = ["bpe", "bpe-gpt2", "hf_bpe", "gpt2"]
# Libraries differ on which of the newest characters are letters; these were all in Unicode before any of them was written.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"])) | st.text("ab 'sS\n\r\t1½水", max_size=60)
few = settings(max_examples=100)


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return tokenizer_of(request.param)


@cache
def tiktoken_of(kind: str) -> Any:
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    tokenizer: Any = tokenizer_of(kind)
    with TemporaryDirectory() as folder:
        export_tiktoken(tokenizer, Path(folder) / "ranks.tiktoken")
        ranks = load_tiktoken_bpe(str(Path(folder) / "ranks.tiktoken"))
    return tiktoken.Encoding("x", pat_str=tokenizer.pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": tokenizer.eot_id})


@cache
def hf_of(kind: str) -> Any:
    from tokenizers import Tokenizer

    with TemporaryDirectory() as folder:
        export_hf(tokenizer_of(kind), Path(folder) / "tokenizer.json")  # type: ignore[arg-type]
        return Tokenizer.from_file(f"{folder}/tokenizer.json")


@pytest.mark.parametrize("kind", KINDS)
@few
@given(text=TEXT)
def test_tiktoken_gives_the_same_ids(kind: str, text: str) -> None:
    assert tiktoken_of(kind).encode_ordinary(text) == tokenizer_of(kind).encode(text).tolist()


@pytest.mark.parametrize("kind", KINDS)
@few
@given(text=TEXT)
def test_the_library_tokenizers_gives_the_same_ids_and_the_text_back(kind: str, text: str) -> None:
    ids = hf_of(kind).encode(text).ids
    assert ids == tokenizer_of(kind).encode(text).tolist()
    assert hf_of(kind).decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_tokenizers_knows_the_end_of_text(kind: str) -> None:
    peer, tokenizer = hf_of(kind), tokenizer_of(kind)
    assert peer.encode("a<|endoftext|>").ids[-1] == peer.token_to_id("<|endoftext|>") == tokenizer.eot_id
    assert peer.get_vocab_size() == tokenizer.vocab_size


def test_what_went_out_comes_back(tokenizer: Any, tmp_path: Path) -> None:
    export_tiktoken(tokenizer, tmp_path / "ranks.tiktoken")
    export_hf(tokenizer, tmp_path / "tokenizer.json")
    for again in (import_tiktoken(tmp_path / "ranks.tiktoken", tokenizer.pattern), import_hf(tmp_path / "tokenizer.json")):
        assert (again.name, again.pattern, again.alphabet) == ("bpe", tokenizer.pattern, tokenizer.alphabet)
        assert again.merges == tokenizer.merges
        assert all(again.encode(text).tolist() == tokenizer.encode(text).tolist() for text in TEXTS)


def test_a_tokenizer_json_of_gpt2s_own_kind_is_read(tmp_path: Path) -> None:
    """As the library writes it: its own pre-tokenizer, merges as one string, the end of text as an added token."""
    tokenizer: Any = tokenizer_of("gpt2")
    export_hf(tokenizer, tmp_path / "tokenizer.json")
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    data["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert import_hf(tmp_path / "tokenizer.json").content() | {"kind": "gpt2"} == tokenizer.content()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model", "type"), "WordPiece"),
        (("normalizer",), {"type": "NFC"}),
        (("pre_tokenizer",), {"type": "Whitespace"}),
        (("pre_tokenizer",), {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}),
        (("added_tokens",), [{"id": 7, "content": "<pad>"}]),
        (("model", "merges"), [["a", "b"]]),
        (("model", "vocab"), {"a": 0}),
        (("model",), None),
    ],
)
def test_a_tokenizer_json_whose_ids_would_change_is_refused(tmp_path: Path, path: tuple[str, ...], value: Any) -> None:
    file = tmp_path / "tokenizer.json"
    export_hf(tokenizer_of("bpe"), file)  # type: ignore[arg-type]
    data = json.loads(file.read_text())
    node = data
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    file.write_text(json.dumps(data))
    with pytest.raises(DataError):
        import_hf(file)


BYTES = "".join(f"{base64.b64encode(bytes([value])).decode()} {value}\n" for value in range(256))


@pytest.mark.parametrize("content", ["", "hello", "YQ== 0\n", "YQ== x\n", BYTES.replace("AA== 0", "AA== 999"), BYTES + "YWJjZA== 256\n"])
def test_a_file_that_holds_no_ranks_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.tiktoken").write_text(content)
    with pytest.raises(DataError):
        import_tiktoken(tmp_path / "x.tiktoken")


def test_a_pattern_from_elsewhere_is_not_stopped_by_a_long_text(tmp_path: Path) -> None:
    export_tiktoken(tokenizer_of("bpe"), tmp_path / "x.tiktoken")  # type: ignore[arg-type]
    tokenizer = import_tiktoken(tmp_path / "x.tiktoken", r"(?:\p{Lu}|\p{L})+\p{Ll}|\p{L}+|[^\p{L}]+(?!x)|.|\n")
    for text in ("A" * 10**6, "a" * 10**6, " " * 10**6 + "x"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("read", [import_hf, import_tiktoken])
def test_a_missing_file_is_a_sentence(tmp_path: Path, read: Any) -> None:
    with pytest.raises(DataError, match="is not a"):
        read(tmp_path / "nothing")


def test_the_snippet_of_the_docs_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tokenizers.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    learned = BPETrainer(vocab_size=300).train(["a text of a few words, and a few more words"])
    learned.save(tmp_path / "runs/<run>/tokenizer")
    exec(snippet, {})
    assert (tmp_path / "ranks.tiktoken").exists() and (tmp_path / "tokenizer.json").exists()
    assert load_tokenizer(tmp_path / "mine").encode("a few words").tolist() == learned.encode("a few words").tolist()
