"""A network in GPT-2's layout as a GGUF file, for llama.cpp and what is built on it.

Exported are byte-level byte pairs of every origin, bytes, and SentencePiece's byte pairs. llama.cpp has no unigram model that falls back
to bytes, and no vocabulary of characters in which a character may be missing.
"""

import json
import urllib.request
from collections.abc import Sequence
from functools import singledispatch
from importlib.metadata import version
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

import torch

from gptshake.errors import ConfigError, GptshakeError
from gptshake.export.hf import behind_likeliest, layout
from gptshake.export.tokenizers import parsed
from gptshake.tokenizer import sentencepiece
from gptshake.tokenizer.bpe import EOT, BytePairTokenizer
from gptshake.tokenizer.byte import ByteTokenizer
from gptshake.tokenizer.exchange import CHARACTER
from gptshake.tokenizer.pretokenizer import PATTERNS
from gptshake.tokenizer.protocol import Tokenizer
from gptshake.tokenizer.sentencepiece import BLANK, SentencePieceTokenizer

LIBRARY = "gguf"
USE = """\
```sh
llama-cli -m model.gguf -p "The " -n 100
```

Prompt and continuation together must fit the context. With a tokenizer of SentencePiece llama.cpp reads the character U+2581 as a blank."""

FILE = "model.gguf"
PRE = {PATTERNS["gpt4"]: "llama-bpe", PATTERNS["gpt2"]: "gpt-2"}  # llama.cpp's names of the patterns that cut a text into words
GREEDY_TOKENS = 32
NEAR_TIE = 0.01  # of the largest logit; llama.cpp's tables of fp16 move logits by up to a few thousandths
NO_SUCH_PAIR = f"{CHARACTER[0xFF]} {CHARACTER[0xFE]}"  # bytes that UTF-8 never has


def write(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """Write model.gguf, fp32, into a folder.

    Raises:
        ConfigError: the network or the tokenizer cannot be expressed, or the package gguf is not installed.
    """
    if find_spec("gguf") is None:
        raise ConfigError("task.to=gguf needs the package gguf, which is not installed: pip install 'gptshake[export]'.")
    import gguf

    config, tensors = layout(model)
    if config["model_type"] != "gpt2":
        raise ConfigError(
            f"task.to=gguf writes networks in GPT-2's layout, and this one is {config['model_type']}: export with task.to=hf."
        )
    if config["n_positions"] < 2:  # it aborts the process
        raise ConfigError("llama.cpp needs a context of at least 2 tokens, and that of this network is 1: export with task.to=hf.")
    writer = gguf.GGUFWriter(folder / FILE, "gpt2")
    add_vocabulary(tokenizer, writer)
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_feed_forward_length(config["n_inner"] or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_bos_token_id(tokenizer.eot_id)
    writer.add_eos_token_id(tokenizer.eot_id)
    writer.add_add_bos_token(False)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config["n_layer"])
    for name, value in tensors.items():
        values = value.T.contiguous() if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else value
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@singledispatch
def add_vocabulary(tokenizer: Any, writer: Any) -> None:
    """Write the tokenizer's vocabulary; one of a user's own cannot be.

    Raises:
        ConfigError: llama.cpp has no such tokenizer.
    """
    raise ConfigError(
        f"llama.cpp has no tokenizer of the kind {tokenizer.name!r} (of characters it must know every one): export with task.to=hf."
    )


@add_vocabulary.register
def _(tokenizer: BytePairTokenizer, writer: Any) -> None:
    if tokenizer.pattern not in PRE:
        raise ConfigError("llama.cpp does not know this tokenizer's pattern, only those of gpt2 and gpt4: export with task.to=hf.")
    names = ["".join(CHARACTER[value] for value in piece) for piece in tokenizer.pieces[:-1]]
    _add_byte_level(writer, PRE[tokenizer.pattern], names, [f"{names[left]} {names[right]}" for left, right in tokenizer.merges])


@add_vocabulary.register
def _(tokenizer: ByteTokenizer, writer: Any) -> None:
    _add_byte_level(writer, "gpt-2", [CHARACTER[value] for value in range(256)], [NO_SUCH_PAIR])  # an empty list cannot be loaded


def _add_byte_level(writer: Any, pre: str, names: list[str], merges: list[str]) -> None:
    from gguf import TokenType

    first = {name: token for token, name in reversed([*enumerate(names)])}
    again = {token for token, name in enumerate(names) if first[name] != token}  # two merges that make the same bytes
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*(f"<|unused-{token}|>" if token in again else name for token, name in enumerate(names)), EOT])
    writer.add_token_types([*(TokenType.UNUSED if token in again else TokenType.NORMAL for token in range(len(names))), TokenType.CONTROL])
    writer.add_token_merges(merges)


@add_vocabulary.register
def _(tokenizer: SentencePieceTokenizer, writer: Any) -> None:
    model = parsed(tokenizer)
    if model.trainer_spec.model_type != model.trainer_spec.BPE:
        raise ConfigError(
            "llama.cpp reads SentencePiece's unigram models without falling back to bytes, so most texts would get other ids: export with "
            "task.to=hf, or train with tokenizer.model_type=bpe."
        )
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([piece.piece for piece in model.pieces])
    writer.add_token_scores([piece.score for piece in model.pieces])
    writer.add_token_types([int(piece.type) for piece in model.pieces])
    writer.add_unk_token_id(sentencepiece.UNK)
    writer.add_add_space_prefix(False)


def check(model: Any, tokenizer: Tokenizer, folder: Path, texts: Sequence[str]) -> str:
    """Load the file with llama.cpp (package xllamacpp) and compare ids of texts and a greedy continuation.

    Raises:
        GptshakeError: llama.cpp gives something else.
    """
    if find_spec("xllamacpp") is None:
        return "not checked: llama.cpp is not installed (pip install 'gptshake[export]')"
    from xllamacpp import CommonParams, Server

    block_size = model.config.block_size
    parameters = CommonParams()
    parameters.model.path = str(folder / FILE)
    parameters.n_ctx = block_size
    parameters.port = 0  # a free one
    parameters.verbosity = -1
    server = Server(parameters)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(what: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{server.listening_address}/{what}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)

    if isinstance(tokenizer, SentencePieceTokenizer):
        texts = [text for text in texts if BLANK not in text]  # llama.cpp reads it as a blank
    for text in texts:
        if ask("tokenize", content=text, parse_special=False)["tokens"] != tokenizer.encode(text).tolist():
            raise GptshakeError(f"The exported tokenizer differs from this one: llama.cpp gives other ids for {text[:40]!r}.")
    prompt = tokenizer.encode(texts[0])[: max(1, block_size // 2)].tolist()
    n_new = max(1, min(GREEDY_TOKENS, block_size - len(prompt) - 1))
    theirs = ask("completion", prompt=prompt, n_predict=n_new, temperature=0, ignore_eos=True, return_tokens=True)["tokens"]
    ids = torch.tensor([prompt + theirs])
    behind, largest = (inf, 0.0) if len(theirs) < n_new else behind_likeliest(model, ids, n_new, never=tokenizer.eot_id)
    if not behind <= NEAR_TIE * largest:
        raise GptshakeError("The exported network differs from this one: llama.cpp's greedy continuation is another.")
    return (
        f"checked with llama.cpp (xllamacpp {version('xllamacpp')}): the ids of {sum(map(len, texts)):,} characters are equal, "
        f"and a greedy continuation of {n_new} tokens agrees"
    )
