"""Exported folders are loaded by the programs they are written for, and give the same ids, logits and text."""

import io
import json
import re
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizer.conftest import TEXTS, TRAINERS, tokenizer_of
from torch import nn

from gptshake.errors import ConfigError, GptshakeError
from gptshake.export import gguf, hf, onnx, torch_export
from gptshake.export.card import model_card
from gptshake.export.tokenizers import same_ids, to_tokenizers
from gptshake.model.generate import generate
from gptshake.model.gpt import GPT
from gptshake.record.index import Entry
from gptshake.tokenizer.byte import ByteTokenizer
from gptshake.tokenizer.sentencepiece import SentencePieceTrainer

needs_programs = pytest.mark.export
# Libraries differ on which of the newest characters are letters; these were all in Unicode before any of them was written.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"])) | st.text("ab 'sS\n\r\t1½水\u2581<|>0x41", max_size=60)
HOSTILE = ["", "<|endoftext|>", "<|unk|>", "<unk><0x41>", "\u2581 a\u2581", "\x00\ufeff", "a\r\n\r\n  b", *TEXTS]
BLOCK_SIZE = 40


def network(vocab_size: int, bias: bool = True) -> GPT:
    """A network whose logits and greedy text are far from constant."""
    torch.manual_seed(0)
    model = GPT(n_layer=2, n_head=2, n_embd=32, block_size=BLOCK_SIZE, vocab_size=vocab_size, bias=bias).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or parameter.ndim > 1:  # gains stay 1, as in a trained network
            nn.init.normal_(parameter, 0, 0.1)
    return model


@cache
def exchanged(kind: str) -> Any:
    """The tokenizer as the library has it, in which no text spells a special token."""
    theirs = to_tokenizers(tokenizer_of(kind))
    theirs.encode_special_tokens = True
    return theirs


@pytest.mark.parametrize("kind", TRAINERS)
@settings(max_examples=60)
@given(text=TEXT)
def test_the_library_tokenizers_gives_the_same_ids_and_the_text_back(kind: str, text: str) -> None:
    ours, theirs = tokenizer_of(kind), exchanged(kind)
    ids = ours.encode(text).tolist()
    assert theirs.encode(text).ids == ids
    if ours.unk_id not in ids:
        assert theirs.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("kind", TRAINERS)
def test_the_end_of_text_has_the_same_id(kind: str) -> None:
    theirs = to_tokenizers(tokenizer_of(kind))
    assert theirs.encode("a<|endoftext|>").ids[-1] == theirs.token_to_id("<|endoftext|>") == tokenizer_of(kind).eot_id


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_pieces_learned_from_texts_that_spell_special_tokens_give_the_same_ids(model_type: str) -> None:
    texts = [f"Once the <unk> {number} said <0x41>.\n<|endoftext|>\nTwice <|endo <0x4 unk> text|>" for number in range(50)]
    tokenizer = SentencePieceTrainer(vocab_size=330, model_type=model_type).train(texts)
    exported = to_tokenizers(tokenizer)
    exported.encode_special_tokens = True
    for text in [*texts, *HOSTILE]:
        assert exported.encode(text).ids == tokenizer.encode(text).tolist()


def test_cuts_of_a_unigram_model_that_are_equally_likely_count_as_equal_ids() -> None:
    tokenizer = SentencePieceTrainer(vocab_size=330).train([f"{'a' * 20} word{number} the cat" for number in range(200)])
    exported, texts = to_tokenizers(tokenizer), ["a" * n for n in range(20, 200)]
    assert any(exported.encode(text).ids != tokenizer.encode(text).tolist() for text in texts)
    assert all(same_ids(tokenizer, exported.encode(text).ids, text) for text in texts)
    ours = tokenizer.encode(text := texts[-1]).tolist()
    assert not same_ids(tokenizer, [*ours[1:], ours[0] + 1], text)
    assert not same_ids(tokenizer_of("byte"), [98, 97], "ab")


@needs_programs
@pytest.mark.parametrize("kind", TRAINERS)
@pytest.mark.parametrize("bias", [True, False])
def test_transformers_loads_the_folder_and_gives_the_same_logits_text_and_ids(kind: str, bias: bool, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = tokenizer_of(kind)
    model = network(tokenizer.vocab_size, bias)
    hf.write(model, tokenizer, tmp_path)
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.arange(2 * BLOCK_SIZE).view(2, BLOCK_SIZE) % tokenizer.vocab_size
    with torch.no_grad():
        assert (theirs(ids).logits - model(ids)).abs().max() < 1e-5
    n_new = BLOCK_SIZE - 3
    theirs.generation_config.eos_token_id = None
    continued = theirs.generate(
        ids[:, :3], attention_mask=torch.ones(2, 3), max_new_tokens=n_new, do_sample=False, pad_token_id=tokenizer.eot_id
    )
    assert torch.equal(continued, generate(model, ids[:, :3], n_new, temperature=0))
    read = AutoTokenizer.from_pretrained(tmp_path)
    assert (read.eos_token_id, read.model_max_length) == (tokenizer.eot_id, BLOCK_SIZE)
    for text in HOSTILE:
        assert read(text, split_special_tokens=True)["input_ids"] == tokenizer.encode(text).tolist()
    assert "ids of" in hf.check(model, tokenizer, tmp_path, HOSTILE)


@needs_programs
def test_weights_and_vocabularies_that_differ_are_found(tmp_path: Path) -> None:
    model = network(257)
    hf.write(model, ByteTokenizer(), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"][0, 0] += 0.1
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GptshakeError, match="logits are up to"):
        hf.check(model, ByteTokenizer(), tmp_path, [])
    other: Any = tokenizer_of("bpe")
    hf.write(model, ByteTokenizer(), tmp_path)
    with pytest.raises(GptshakeError, match="other ids for 'two words'"):
        hf.check(model, SimpleNamespace(vocab_size=257, eot_id=256, encode=other.encode), tmp_path, ["two words"])  # type: ignore[arg-type]


@needs_programs
def test_of_tokens_that_are_equally_likely_but_for_rounding_either_may_be_taken(tmp_path: Path) -> None:
    model, tokenizer = network(257), ByteTokenizer()
    with torch.no_grad():
        model.ln_f.bias.copy_(20 * model.wte.weight[5])  # the likeliest token at all places, and 9 is its twin
        model.wte.weight[9] = model.wte.weight[5]
        hf.write(model, tokenizer, tmp_path)
        gguf.write(model, tokenizer, tmp_path)
        model.wte.weight[9] *= 1 + 5e-7
    assert int(model(torch.tensor([[84]])).argmax()) == 9
    for form in (hf, gguf):
        assert "tokens agrees" in form.check(model, tokenizer, tmp_path, ["The end."])
    options = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps(options | {"suppress_tokens": [5, 9]}))
    with pytest.raises(GptshakeError, match="greedy continuation"):
        hf.check(model, tokenizer, tmp_path, [])


def test_files_can_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    hf.write(network(257), ByteTokenizer(), tmp_path)
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1


class Linear(nn.Module):
    """A network of another layout."""

    config = SimpleNamespace(block_size=4, vocab_size=257)


@needs_programs
def test_another_layout_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Linear is no network that transformers has.*to_hf\(model\)"):
        hf.write(Linear(), ByteTokenizer(), tmp_path)
    with pytest.raises(ConfigError, match="to_hf"):
        gguf.write(Linear(), ByteTokenizer(), tmp_path)


@needs_programs
def test_a_network_of_ones_own_brings_its_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "to_hf", lambda model: ({"model_type": "mine"}, {"weight": torch.ones(2, 2)}))
    hf.write(Linear(), ByteTokenizer(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "mine"
    assert load_file(tmp_path / "model.safetensors")["weight"].shape == (2, 2)
    with pytest.raises(ConfigError, match=r"this one is mine: export with task\.to=hf"):
        gguf.write(Linear(), ByteTokenizer(), tmp_path)


def test_a_tokenizer_of_ones_own_brings_its_mapping_or_is_refused() -> None:
    mine: Any = SimpleNamespace(name="mine", to_tokenizers=lambda: "theirs")
    assert to_tokenizers(mine) == "theirs"
    with pytest.raises(ConfigError, match="method to_tokenizers"):
        to_tokenizers(SimpleNamespace(name="mine"))


@pytest.mark.parametrize("form", [torch_export, pytest.param(onnx, marks=needs_programs)])
@pytest.mark.parametrize("bias", [True, False])
def test_programs_give_the_same_logits_for_any_length(form: Any, bias: bool, tmp_path: Path) -> None:
    model = network(257, bias)
    form.write(model, ByteTokenizer(), tmp_path)
    assert "logits of four shapes up to 40 tokens" in form.check(model, ByteTokenizer(), tmp_path, [])
    with torch.no_grad():
        model.wpe.weight[-1, 0] += 1  # one channel: the same in all is taken away by the norm
    with pytest.raises(GptshakeError, match="logits are up to"):
        form.check(model, ByteTokenizer(), tmp_path, [])


@needs_programs
@pytest.mark.parametrize("kind", ["byte", "bpe", "bpe-gpt2", "hf_bpe", "sentencepiece-bpe", "gpt2"])
def test_llama_cpp_gives_the_same_ids_and_the_same_greedy_text(kind: str, tmp_path: Path) -> None:
    tokenizer: Any = tokenizer_of(kind)
    model = network(tokenizer.vocab_size, bias=kind != "bpe")
    gguf.write(model, tokenizer, tmp_path)
    assert "characters are equal" in gguf.check(model, tokenizer, tmp_path, ["The end.", *HOSTILE])
    with torch.no_grad():
        model.wte.weight.copy_(model.wte.weight.flip(0))
    with pytest.raises(GptshakeError, match="greedy continuation"):
        gguf.check(model, tokenizer, tmp_path, ["The end."])


def test_a_continuation_that_llama_cpp_ends_early_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = SimpleNamespace(listening_address="http://here")
    llama = SimpleNamespace(CommonParams=lambda: SimpleNamespace(model=SimpleNamespace()), Server=lambda _: server, __spec__="found")
    monkeypatch.setitem(sys.modules, "xllamacpp", llama)

    def answer(request: Any, timeout: float) -> Any:
        return io.BytesIO(json.dumps({"tokens": list(b"The end.") if request.full_url.endswith("tokenize") else []}).encode())

    monkeypatch.setattr(gguf.urllib.request, "build_opener", lambda *_: SimpleNamespace(open=answer))
    with pytest.raises(GptshakeError, match="greedy continuation"):
        gguf.check(network(257), ByteTokenizer(), tmp_path, ["The end."])


@needs_programs
def test_a_context_of_one_token_can_be_exported_but_to_llama_cpp(tmp_path: Path) -> None:
    model = GPT(n_layer=1, n_head=1, n_embd=8, block_size=1, vocab_size=257).eval()
    for form in (hf, torch_export, onnx):
        form.write(model, ByteTokenizer(), tmp_path)
        assert "differ by at most" in form.check(model, ByteTokenizer(), tmp_path, [])
    with pytest.raises(ConfigError, match="at least 2 tokens"):
        gguf.write(model, ByteTokenizer(), tmp_path)
    gguf.write(model := GPT(n_layer=1, n_head=1, n_embd=8, block_size=2, vocab_size=257).eval(), ByteTokenizer(), tmp_path)
    assert "continuation of 1 tokens" in gguf.check(model, ByteTokenizer(), tmp_path, ["The end."])


@needs_programs
def test_a_network_that_would_rather_end_the_text_is_compared_by_its_other_tokens(tmp_path: Path) -> None:
    model, tokenizer = network(257), ByteTokenizer()
    with torch.no_grad():
        model.ln_f.bias.copy_(20 * model.wte.weight[tokenizer.eot_id])
        assert int(model(torch.tensor([[84]])).argmax()) == tokenizer.eot_id
    gguf.write(model, tokenizer, tmp_path)
    assert "greedy continuation of 31 tokens agrees" in gguf.check(model, tokenizer, tmp_path, ["The end."])


@needs_programs
@pytest.mark.parametrize(("kind", "reason"), [("char", "must know every one"), ("unigram", "without falling back to bytes")])
def test_what_llama_cpp_has_no_tokenizer_for_is_refused(kind: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        gguf.write(network(tokenizer_of(kind).vocab_size), tokenizer_of(kind), tmp_path)


@pytest.mark.parametrize(
    ("licence", "written"),
    [
        ("Wikipedia authors, CC BY-SA 3.0", "license: cc-by-sa-3.0"),
        ("wikimedia/wikipedia, licence cc-by-sa-4.0", "license: cc-by-sa-4.0"),
        ("mine/plays, licence not stated on its card", ""),
        ("your own file (license unknown)", ""),
    ],
)
def test_the_card_names_the_licence_only_where_it_is_known(licence: str, written: str, tmp_path: Path) -> None:
    info = {
        "id": "abc",
        "name": "a-abc",
        "data": {"label": "book", "licence": licence},
        "summary": {"val/loss": 2.0},
        "overrides": ["model=tiny"],
    }
    card = model_card(Entry(tmp_path, "ok", info), [], plot=False, use="", library="transformers")
    assert written in card and licence in card
    assert re.search("^license: ", card, re.MULTILINE) is not None or not written
    assert "| loss on the validation split, nats per token | 2.0000 |" in card and "python -m gptshake model=tiny" in card
