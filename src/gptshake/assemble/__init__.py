"""The one room where config becomes objects; below it travel plain values only. torch is imported late.

In the order of a run: ``settle`` (what it is about), ``opening`` (its record), ``run`` (training), ``weights`` (what came out).
"""

from gptshake.assemble.fit import fitter, memory_limit
from gptshake.assemble.forecast import around, device_of, measured, memory, stopwatch
from gptshake.assemble.parts import make
from gptshake.assemble.run import OURS, train
from gptshake.assemble.settle import model_shape, preflight, resolve, token_store, tokenizer_trainer
from gptshake.assemble.weights import trained

__all__ = [
    "OURS",
    "around",
    "device_of",
    "fitter",
    "make",
    "measured",
    "memory",
    "memory_limit",
    "model_shape",
    "preflight",
    "resolve",
    "stopwatch",
    "token_store",
    "tokenizer_trainer",
    "train",
    "trained",
]
