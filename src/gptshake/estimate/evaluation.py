"""The figures of an evaluation, from what was found of each document: arrays of shape (n_documents,)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]


def ratio(parts: Values, sizes: Values) -> tuple[float, float | None]:
    """sum(parts) / sum(sizes), and its standard error over documents: sqrt(n / (n - 1) sum((part - ratio size)^2)) / sum(sizes).

    Source: Cochran 1977, Sampling Techniques, chapter 6 (the ratio estimate). None with fewer than two documents.
    """
    n, total = len(parts), float(sizes.sum())
    found = float(parts.sum()) / total
    return found, math.sqrt(n / (n - 1) * float(((parts - found * sizes) ** 2).sum())) / total if n > 1 else None


def figures(each: Mapping[str, Values]) -> dict[str, float | None]:
    """Loss in nats per token, bits per byte and per character with their errors, and perplexities, from arrays by name.

    The bits charge what unknown tokens hide (``hidden``, in nats); loss and perplexities, as those of lm-evaluation-harness, do not.
    """
    nats, bits, found = each["nats"], (each["nats"] + each["hidden"]) / math.log(2), dict[str, float | None]()
    for name, parts, sizes in (("loss", nats, "tokens"), ("bpb", bits, "bytes"), ("bpc", bits, "characters")):
        found[name], found[f"{name}_error"] = ratio(parts, each[sizes])
    with np.errstate(over="ignore"):  # infinite for a broken network
        for name, sizes in (("perplexity", "tokens"), ("word_perplexity", "words"), ("byte_perplexity", "bytes")):
            found[name] = float(np.exp(ratio(nats, each[sizes])[0]))
    return found
