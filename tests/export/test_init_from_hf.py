"""Weights in transformers' layout become this network: the same logits, or a sentence about what cannot be expressed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from export.test_export import network
from fake_hub import COMMIT, FakeHub, fake_hub
from omegaconf import OmegaConf
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from gptshake.errors import ConfigError, DataError
from gptshake.export import hf, hub
from gptshake.export.tokenizers import TEXTS, gives_same_ids, read_tokenizer, write_tokenizer
from gptshake.model.config import GPTConfig, shape_from_hf
from gptshake.model.gpt import GPT, from_hf
from gptshake.setup.initial import initial_weights, pretrained_network, pretrained_tokenizer
from gptshake.tokenizer.byte import ByteTokenizer
from gptshake.training.checkpoint import load_tensors

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported network of bytes."""
    (tmp_path / "model").mkdir()
    hf.write(network(257), ByteTokenizer(), tmp_path / "model")
    return tmp_path / "model"


def tensors_of(source: str) -> Tensors:
    return load_tensors(*hub.weights_files(source))


def read(source: Path | str, **shape: Any) -> GPT:
    """The network of ``hf:source``, with some of its sizes changed."""
    source = f"hf:{source}"
    hub.located.cache_clear()
    found = hub.read_shape(source)
    sizes = {key: getattr(found, key) for key in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "bias")} | shape
    model = GPT(**sizes).eval()
    model.load_state_dict(from_hf(GPTConfig(**sizes), tensors_of(source)))
    return model


def logits(model: Any, time: int = 40) -> torch.Tensor:
    ids = torch.randint(model.config.vocab_size, (2, time), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: Any = model(ids)
    return getattr(found, "logits", found)


@pytest.mark.parametrize("bias", [True, False])
def test_an_export_read_back_gives_the_same_logits_bit_for_bit(bias: bool, tmp_path: Path) -> None:
    model = network(257, bias)
    hf.write(model, ByteTokenizer(), tmp_path)
    assert torch.equal(logits(read(tmp_path, bias=bias)), logits(model))
    assert torch.equal(logits(read(tmp_path)), logits(model))  # a bias of zeros changes nothing


def test_a_shorter_context_takes_the_first_positions(folder: Path) -> None:
    assert torch.equal(logits(read(folder, block_size=16), 16), logits(network(257), 16))


def test_the_names_of_older_files_are_read(folder: Path) -> None:
    """GPT-2's own on the hub: without ``transformer.``, with masks; others hold the tied head, too."""
    tensors = tensors_of(f"hf:{folder}")
    shape = hub.read_shape(f"hf:{folder}")
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    old |= {"h.0.attn.bias": torch.ones(1, 1, 40, 40), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    tied = tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()}
    for other in (old, tied):
        assert all(torch.equal(tensor, from_hf(shape, tensors)[name]) for name, tensor in from_hf(shape, other).items())


def test_half_precision_becomes_fp32(folder: Path) -> None:
    half = {name: tensor.half() for name, tensor in tensors_of(f"hf:{folder}").items()}
    found = from_hf(hub.read_shape(f"hf:{folder}"), half)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert torch.equal(found["blocks.0.mlp.c_fc.weight"], half["transformer.h.0.mlp.c_fc.weight"].T.float())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors: tensors.pop("transformer.h.1.ln_2.bias"), r'Missing .*"blocks\.1\.ln_2\.bias"'),
        (lambda tensors: tensors.update({"transformer.wpe.weight": torch.zeros(8, 32)}), r"mismatch for wpe\.weight: .*\[8, 32\]"),
        (lambda tensors: tensors.update({"lm_head.weight": torch.zeros(257, 32)}), "a head of their own"),
        (lambda tensors: tensors["transformer.wte.weight"][3].fill_(torch.nan), r"transformer\.wte\.weight .* NaN"),
        (
            lambda tensors: tensors.update({"transformer.wpe.weight": torch.ones(128, 32, dtype=torch.int8)}),
            r"wpe\.weight .* whole numbers",
        ),
        (lambda tensors: tensors.update({"score.weight": torch.zeros(2, 32)}), r'Unexpected .*"transformer\.score\.weight"'),
    ],
)
def test_weights_of_another_layout_are_refused_by_name(change: Callable[[Tensors], Any], sentence: str, folder: Path) -> None:
    tensors = tensors_of(f"hf:{folder}")
    change(tensors)
    with pytest.raises(ConfigError, match=sentence):
        from_hf(hub.read_shape(f"hf:{folder}"), tensors)


def test_weights_in_several_files_are_read_as_one_and_must_be_there_whole(folder: Path) -> None:
    whole = (folder / "model.safetensors").rename(folder.parent / "whole")
    tensors = load_tensors(whole)
    names = {name: f"model-0000{1 + number % 3}-of-00003.safetensors" for number, name in enumerate(tensors)}
    for file in dict.fromkeys(names.values()):
        save_file({name: tensor for name, tensor in tensors.items() if names[name] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert torch.equal(logits(read(folder)), logits(network(257)))
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(DataError, match=r"not whole: .* names model-00002-of-00003\.safetensors, which is no file beside it"):
        tensors_of(f"hf:{folder}")
    for content, sentence in (('{"weight_map": {}}', "names no file"), ("[]", "cannot be read"), ("{", "cannot be read")):
        index.write_text(content)
        with pytest.raises(DataError, match=sentence):
            tensors_of(f"hf:{folder}")
    index.write_text(json.dumps({"weight_map": {"a": f"../{whole.name}"}}))
    with pytest.raises(DataError, match="not whole"):
        tensors_of(f"hf:{folder}")


@pytest.mark.parametrize(("size", "value"), [("n_layer", 10**12), ("n_embd", 10**7), ("n_positions", 10**12), ("vocab_size", 10**13)])
def test_sizes_that_are_not_those_of_the_weights_take_no_memory(folder: Path, size: str, value: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    for larger, error in ((config[size] + 2, r"not those of the network in config\.json"), (value, "of a larger network than its weights")):
        (folder / "config.json").write_text(json.dumps(config | {size: larger}))
        with pytest.raises((ConfigError, DataError), match=error):
            pretrained_network(f"hf:{folder}")


@pytest.mark.parametrize("rows", [264, 320, 384])
def test_rows_that_pad_a_vocabulary_count_in_an_evaluation_and_are_no_tokens(folder: Path, rows: int) -> None:
    tensors, config = tensors_of(f"hf:{folder}"), json.loads((folder / "config.json").read_text())
    embedding = tensors["transformer.wte.weight"]
    padded = torch.cat([embedding, torch.full((rows - 257, 32), 0.5)])
    save_file(tensors | {"transformer.wte.weight": padded}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    source, ids = f"hf:{folder}", torch.arange(80).view(2, 40)
    tokenizer, whole = pretrained_tokenizer(source), pretrained_network(source).eval()
    cfg = OmegaConf.create({"init_from": source, "model": {"block_size": 40, "bias": True}})
    started = network(257)
    initial_weights(cfg, tokenizer, {}).load(started)
    with torch.no_grad():
        expected, found = network(257)(ids), whole(ids)
        for one in (found[..., :257], started(ids), pretrained_network(source, tokenizer.vocab_size).eval()(ids)):
            torch.testing.assert_close(one, expected)
    assert found.shape[-1] == rows and float(found.logsumexp(-1).min() - expected.logsumexp(-1).min()) > 1e-3


def test_biases_are_not_left_out_in_silence(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.bias=true"):
        read(folder, bias=False)


SIZES = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 4, "n_positions": 8, "vocab_size": 10}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "llama"}, "of the type llama"),
        ({"model_type": None}, "of the type None"),
        ({"activation_function": "relu"}, "activation_function=relu"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06"),
        ({"n_inner": 12}, "n_inner=12"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"n_embd": "4"}, "does not give n_embd"),
        ({"n_positions": None}, "does not give n_positions"),
    ],
)
def test_what_the_network_cannot_express_is_refused_by_key(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        shape_from_hf(SIZES | config)


def test_other_names_of_the_same_are_accepted() -> None:
    assert shape_from_hf(SIZES | {"activation_function": "gelu_pytorch_tanh", "n_inner": 16}) == GPTConfig(1, 2, 4, 8, 10)


def test_a_folder_without_its_parts_is_refused_with_what_is_missing(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"no model\.safetensors\. Pickles .* never read"):
        hub.weights_files(f"hf:{folder}")
    for content in ("{", "[1]", "[" * 100_000):
        (folder / "config.json").write_text(content)
        with pytest.raises(DataError, match=r"its config\.json cannot be read"):
            hub.read_shape(f"hf:{folder}")
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"its config\.json cannot be read .*save_pretrained"):
        hub.read_shape(f"hf:{folder}")


def test_a_tokenizer_with_other_ids_is_found(folder: Path) -> None:
    from tokenizer.conftest import tokenizer_of

    file = folder / "tokenizer.json"
    assert gives_same_ids(ByteTokenizer(), file) and not gives_same_ids(tokenizer_of("bpe"), file)
    words = '{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "no"}}'
    for content in ("", '{"model": {"type": "BPE"', words, "\udcff"):
        file.write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(DataError, match=r"tokenizer\.json cannot be read \(.*Restore it"):
            gives_same_ids(ByteTokenizer(), file)
    data = json.loads(Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])).to_str())
    data["model"]["continuing_subword_prefix"] = "longer"
    file.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"tokenizer\.json cannot be read \(range end index .*Restore it"):  # a panic of its Rust code
        gives_same_ids(ByteTokenizer(), file)
    file.unlink()
    assert gives_same_ids(tokenizer_of("bpe"), file)  # there is nothing to compare with


@pytest.mark.parametrize("kind", ["bpe", "gpt2", "byte", "char"])
def test_a_tokenizer_json_becomes_the_tokenizer_that_wrote_it(kind: str, tmp_path: Path) -> None:
    from tokenizer.conftest import tokenizer_of

    tokenizer, file = tokenizer_of(kind), tmp_path / "tokenizer.json"
    write_tokenizer(tokenizer, tmp_path)
    if kind == "gpt2":  # as it lies on the hub, from before tokenizers had these keys
        data = json.loads(file.read_text())
        data["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        file.write_text(json.dumps(data))
    found = read_tokenizer(file)
    assert found.vocab_size == tokenizer.vocab_size and found.eot_id == tokenizer.eot_id
    assert all(found.encode(text).tolist() == tokenizer.encode(text).tolist() for text in TEXTS)


def test_a_tokenizer_that_cannot_be_used_is_refused(folder: Path) -> None:
    from tokenizer.conftest import tokenizer_of

    write_tokenizer(tokenizer_of("unigram"), folder)
    with pytest.raises(DataError, match=r"tokenizer\.json cannot be used"):
        pretrained_tokenizer(f"hf:{folder}")
    write_tokenizer(tokenizer_of("bpe"), folder)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"normalizer": {"type": "Prepend", "prepend": "\u2581"}}))
    with pytest.raises(DataError, match="changes a text before it encodes it, as Llama's do"):
        pretrained_tokenizer(f"hf:{folder}")
    write_tokenizer(tokenizer_of("char"), folder)
    with pytest.raises(DataError, match="257 rows in its embedding"):
        pretrained_tokenizer(f"hf:{folder}")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="save its tokenizer there"):
        pretrained_tokenizer(f"hf:{folder}")


@pytest.mark.export
def test_logits_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(n_layer=3, n_head=4, n_embd=64, n_positions=40, vocab_size=300, initializer_range=0.2)).eval()
    expected = logits(theirs)
    assert expected.std() > 0.5
    for size, n_files in (("5GB", 1), ("100KB", 3)):
        folder = tmp_path / size
        theirs.save_pretrained(folder, max_shard_size=size)
        assert len(list(folder.glob("*.safetensors"))) >= n_files
        assert (logits(read(folder)) - expected).abs().max() <= 1e-5 * expected.abs().max()


# --- a hub ---

ASK = "import sys; from gptshake.export import hub; print(hub.pinned(sys.argv[1]), *hub.weights_files(sys.argv[1]))"


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Any:
    with fake_hub(tmp_path / "home") as served:
        served.files["me/bytes"] = {file.name: file.read_bytes() for file in folder.iterdir()} | {"pytorch_model.bin": b"\x80"}
        yield served


def ask(served: FakeHub, source: str, **options: bool) -> str:
    """What a process of its own finds, or the last line of its error."""
    done = subprocess.run([sys.executable, "-c", ASK, source], env=os.environ | served.env(**options), capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_model_of_the_hub_is_pinned_to_its_commit_and_needs_no_network_afterwards(server: FakeHub, folder: Path) -> None:
    pinned, file = ask(server, "hf:me/bytes").split()
    assert pinned == f"hf:me/bytes@{COMMIT}" and Path(file).read_bytes() == (folder / "model.safetensors").read_bytes()
    assert not any("pytorch_model.bin" in asked for asked in server.asked)
    server.asked.clear()
    assert ask(server, pinned, offline=True).split() == [pinned, file] == ask(server, "hf:me/bytes", offline=True).split()
    assert not any("/api/models" in asked or "resolve" in asked for asked in server.asked)


@pytest.mark.parametrize(
    ("source", "offline", "sentence"),
    [
        ("hf:me/nosuch", False, "RepositoryNotFoundError"),
        ("hf:me/bytes@v2", False, "RevisionNotFoundError"),
        ("hf:./nosuch", False, "hf:./nosuch is no folder"),
        ("hf:me/bytes", True, "HF_HUB_OFFLINE"),
    ],
)
def test_what_is_not_there_is_a_sentence(source: str, offline: bool, sentence: str, server: FakeHub) -> None:
    line = ask(server, source, offline=offline)
    assert line.startswith("gptshake.errors.Unreachable") and sentence in line and "hf auth login" in line


def test_a_folder_is_named_by_its_absolute_path_whatever_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert hub.pinned("hf:model") == f"hf:{folder}"
    folder.rename(folder.with_name("a@b"))
    assert hub.pinned("hf:a@b") == f"hf:{folder.with_name('a@b')}"


def test_gpt2_itself_is_read_where_a_hub_is_reachable() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GPT2], env=os.environ | {"HF_HUB_OFFLINE": "0"}, capture_output=True, text=True, timeout=280
    )
    if "Unreachable" in done.stderr:
        pytest.skip("the hub does not answer")
    assert done.returncode == 0 and 0.1 < float(done.stdout) < 4, done.stderr  # guessing gives 10.8


# The loss, in nats per token, of the real weights on a sentence that everybody knows.
GPT2 = """
import torch
from gptshake.export import hub
from gptshake.export.tokenizers import gives_same_ids
from gptshake.model.gpt import GPT, from_hf
from gptshake.tokenizer.gpt2 import GPT2Trainer
from safetensors.torch import load_file
source, tokenizer = "hf:openai-community/gpt2", GPT2Trainer().train([])
shape, (file,) = hub.read_shape(source), hub.weights_files(source)
assert gives_same_ids(tokenizer, file.with_name(hub.TOKENIZER))
model = GPT(n_layer=12, n_head=12, n_embd=768, block_size=1024, vocab_size=50257).eval()
model.load_state_dict(from_hf(shape, load_file(file)))
text = "We hold these truths to be self-evident, that all men are created equal, that they are endowed by their Creator"
ids = torch.tensor([tokenizer.encode(text).tolist()])
with torch.no_grad():
    print(float(model.loss(ids[:, :-1], ids[:, 1:])))
"""
