"""A network and its tokenizer as a folder that transformers loads with ``AutoModelForCausalLM`` and ``AutoTokenizer``.

A network in GPT-2's layout becomes ``GPT2LMHeadModel``. Any other brings its mapping as a function ``to_hf(model)`` beside its class,
which gives the content of config.json and the tensors by name.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from gptshake.errors import ConfigError, GptshakeError
from gptshake.export.tokenizers import UNK, same_ids, write_tokenizer
from gptshake.tokenizer.bpe import EOT
from gptshake.tokenizer.protocol import Tokenizer

LIBRARY = "transformers"
USE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
ids = tokenizer("The ", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=100, do_sample=True, temperature=0.8)[0]))
```

Prompt and continuation together must fit the context. A text that spells a special token, such as `<|endoftext|>`, becomes that token; with
`split_special_tokens=True` it stays plain text, as it was in training."""

TOLERANCE = 1e-5  # of a logit, in fp32; relative where logits are larger than 1
GREEDY_TOKENS = 64
NOT_INSTALLED = "not checked: transformers is not installed (pip install 'gptshake[export]')"


def write(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """Write safetensors, config.json, generation_config.json and the tokenizer's two files into a folder.

    Args:
        model: in fp32, on the CPU, as for every format.
        folder: is there, and empty.
    Raises:
        ConfigError: the network or the tokenizer cannot be expressed there.
    """
    write_tokenizer(tokenizer, folder)
    config, tensors = layout(model)
    ends = {"bos_token_id": tokenizer.eot_id, "eos_token_id": tokenizer.eot_id}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    words = dict.fromkeys(("bos_token", "eos_token", "pad_token"), EOT) | ({} if tokenizer.name != "char" else {"unk_token": UNK})
    files = {
        "config.json": config | ends | {"dtype": "float32"},
        "generation_config.json": ends | {"pad_token_id": tokenizer.eot_id},
        "tokenizer_config.json": words
        | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": model.config.block_size,
            "clean_up_tokenization_spaces": False,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # as the umask says; safetensors writes for the owner alone


def layout(model: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The content of the network's config.json and its tensors by name, as ``to_hf`` beside its class gives them.

    Raises:
        ConfigError: there is no such function.
    """
    to_hf = getattr(sys.modules[type(model).__module__], "to_hf", None)
    if to_hf is None:
        raise ConfigError(
            f"{type(model).__name__} is no network that transformers has: only GPT-2's layout is exported. For a network of your own write "
            "a function to_hf(model) beside its class, which returns the content of config.json and the tensors (docs/export.md)."
        )
    found: tuple[dict[str, Any], dict[str, torch.Tensor]] = to_hf(model)
    return found


def check(model: Any, tokenizer: Tokenizer, folder: Path, texts: Sequence[str]) -> str:
    """Load the folder with transformers and compare: logits of random ids at full context, a greedy continuation, ids of texts.

    Returns:
        What was compared, as one line; or that transformers is not installed.
    Raises:
        GptshakeError: transformers gives something else.
    """
    if find_spec("transformers") is None:
        return NOT_INSTALLED
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    theirs = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    read = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    block_size, vocab_size = model.config.block_size, tokenizer.vocab_size
    ids = torch.randint(vocab_size, (1, block_size), generator=torch.Generator().manual_seed(0))
    n_new = min(GREEDY_TOKENS, max(1, block_size - 1))
    theirs.generation_config.eos_token_id = None  # ours does not stop at the end of a text
    with torch.no_grad():
        ours = model(ids)
        difference = float((ours - theirs(ids).logits).abs().max())
        options = {"max_new_tokens": n_new, "do_sample": False, "pad_token_id": tokenizer.eot_id}
        continued = theirs.generate(ids[:, :1], attention_mask=torch.ones(1, 1), **options)
    if not difference <= TOLERANCE * max(1.0, float(ours.abs().max())):
        raise GptshakeError(f"The exported network differs from this one: its logits are up to {difference:.1e} apart.")
    behind, largest = behind_likeliest(model, continued, n_new)
    if not behind <= 2 * TOLERANCE * max(1.0, largest):  # of both logits
        raise GptshakeError("The exported network differs from this one: its greedy continuation is another.")
    for text in texts:
        if not same_ids(tokenizer, read(text, split_special_tokens=True, add_special_tokens=False)["input_ids"], text):
            raise GptshakeError(f"The exported tokenizer differs from this one: it gives other ids for {text[:40]!r}.")
    return (
        f"checked with transformers {version('transformers')}: logits differ by at most {difference:.1e} at {block_size} tokens, a greedy "
        f"continuation of {n_new} tokens agrees, and the ids of {sum(map(len, texts)):,} characters are equal"
    )


def behind_likeliest(model: Any, ids: torch.Tensor, n_new: int, never: int | None = None) -> tuple[float, float]:
    """How far the logits of the last ``n_new`` of the tokens ``ids``, (1, T), lie at most behind the largest one there; and the largest of all.

    0 for the greedy continuation. Of two tokens that are equally likely but for rounding either may be taken, and what follows depends on
    it: so each token is judged by those before it. The token ``never`` is none that can be taken.
    """
    with torch.no_grad():
        logits = model(ids[:, :-1])[0, -n_new:]
    largest = float(logits.abs().max())
    if never is not None:
        logits[:, never] = -torch.inf
    taken = logits.gather(-1, ids[0, -n_new:, None])
    return float((logits.amax(-1, keepdim=True) - taken).max()), largest
