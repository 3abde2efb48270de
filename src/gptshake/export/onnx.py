"""A network as an ONNX file, for onnxruntime and what else reads it; any batch and any context up to block_size, without a cache."""

import logging
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from gptshake.errors import ConfigError
from gptshake.export.tokenizers import write_tokenizer
from gptshake.export.torch_export import compared, dynamic_shapes, example
from gptshake.tokenizer.protocol import Tokenizer

LIBRARY = "onnx"
USE = """\
```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
(logits,) = session.run(None, {"input_ids": np.array([ids])})  # (batch, time, vocabulary)
```

`tokenizers.Tokenizer.from_file("tokenizer.json")` gives the ids. There is no cache of keys and values: the file is made for scoring."""

FILE = "model.onnx"
ONE_FILE = 1 << 30  # bytes of weights; the format ends at 2 GiB, larger weights lie in model.onnx.data
NEEDED = ("onnx", "onnxscript")


def write(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """Write model.onnx and tokenizer.json into a folder.

    Raises:
        ConfigError: the packages that write ONNX are not installed.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ConfigError(f"task.to=onnx needs the package {missing[0]}, which is not installed: pip install 'gptshake[export]'.")
    write_tokenizer(tokenizer, folder)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # torchvision, which nothing here needs, is missed aloud
    try:
        shapes = dynamic_shapes(model.config.block_size)
        options: Any = {"input_names": ["input_ids"], "output_names": ["logits"], "dynamic_shapes": shapes, "verbose": False}
        options["external_data"] = 4 * sum(value.numel() for value in model.parameters()) > ONE_FILE
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch's, about itself
            torch.onnx.export(model, example(model), folder / FILE, dynamo=True, **options)
    finally:
        logger.setLevel(level)


def check(model: Any, tokenizer: Tokenizer, folder: Path, texts: Sequence[str]) -> str:
    """Run the file in onnxruntime and compare its logits at several shapes.

    Raises:
        GptshakeError: they differ.
    """
    del tokenizer, texts
    if find_spec("onnxruntime") is None:
        return "not checked: onnxruntime is not installed (pip install 'gptshake[export]')"
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / FILE)
    run = lambda ids: torch.from_numpy(session.run(None, {"input_ids": ids.numpy()})[0])  # noqa: E731
    return compared(model, run, f"onnxruntime {onnxruntime.__version__}", 1e-5)
