"""A network as a program of ``torch.export``, which runs without its source, for any batch and any context up to block_size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from gptshake.errors import GptshakeError
from gptshake.export.tokenizers import write_tokenizer
from gptshake.tokenizer.protocol import Tokenizer

LIBRARY = "pytorch"
USE = """\
```python
import torch

network = torch.export.load("model.pt2").module()
logits = network(torch.tensor([ids]))  # (batch, time, vocabulary)
```

`tokenizers.Tokenizer.from_file("tokenizer.json")` gives the ids; time is at most the context that the network was trained with."""

FILE = "model.pt2"
LARGEST_BATCH = 1024


def dynamic_shapes(block_size: int) -> tuple[dict[int, Any]]:
    """Of token ids (batch, time); with a context of one token, time is a constant."""
    time = {1: Dim("time", min=1, max=block_size)} if block_size > 1 else {}
    return ({0: Dim("batch", min=1, max=LARGEST_BATCH)} | time,)


def example(model: Any, batch: int = 2, time: int | None = None) -> tuple[torch.Tensor]:
    """Random token ids (batch, time); the whole context without ``time``. A size of 1 would be taken for a constant."""
    shape = (batch, time or model.config.block_size)
    return (torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0)),)


def write(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    write_tokenizer(tokenizer, folder)
    program = torch.export.export(model, example(model), dynamic_shapes=dynamic_shapes(model.config.block_size))
    torch.export.save(program, folder / FILE)


def check(model: Any, tokenizer: Tokenizer, folder: Path, texts: Sequence[str]) -> str:
    """Load the program and compare its logits at several shapes.

    Raises:
        GptshakeError: they differ.
    """
    del tokenizer, texts
    return compared(model, torch.export.load(folder / FILE).module(), "torch.export", 1e-6)


def compared(model: Any, other: Any, name: str, tolerance: float) -> str:
    """Compare logits at four shapes with another form of the network.

    Args:
        other: token ids (batch, time) to logits.
        name: of the other form.
        tolerance: of a logit; relative where logits are larger than 1.
    Raises:
        GptshakeError: the logits differ.
    """
    block_size, difference = model.config.block_size, 0.0
    with torch.no_grad():
        for batch, time in ((1, 1), (2, block_size // 2 or 1), (3, block_size), (5, block_size // 3 or 1)):
            (ids,) = example(model, batch, time)
            ours = model(ids)
            apart = float((ours - other(ids)).abs().max()) / max(1.0, float(ours.abs().max()))
            difference = max(difference, apart)
    if not difference <= tolerance:
        raise GptshakeError(f"The exported network differs from this one: its logits are up to {difference:.1e} apart.")
    return f"checked with {name}: logits of four shapes up to {block_size} tokens differ by at most {difference:.1e}"
