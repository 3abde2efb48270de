"""The one package where config becomes objects; below it travel plain values only. torch is imported late.

In the order of a run: ``settle`` (what it is about), ``opening`` (its record), ``run`` (training), ``weights`` (what came out).
``finding`` and ``confirming`` advise before it.
"""

from gptshake.assemble.confirming import confirm
from gptshake.assemble.finding import Ramps, run_range_tests
from gptshake.assemble.fit import fitter, memory_limit
from gptshake.assemble.forecast import (
    around,
    device_of,
    may_be_tried,
    measured,
    memory,
    memory_there,
    model_shape,
    refuse_oversized,
    stopwatch,
)
from gptshake.assemble.noise_scale import measure_checkpoints
from gptshake.assemble.opening import open_run, outcome
from gptshake.assemble.parts import make
from gptshake.assemble.run import OURS, follow, train
from gptshake.assemble.schedule import longer_warmup, planned_schedule, planned_warmup_steps, schedule_words
from gptshake.assemble.settle import frozen_source, open_store_of, plan_of, preflight, resolve, token_store, tokenizer_trainer
from gptshake.assemble.weights import trained

__all__ = [
    "OURS",
    "Ramps",
    "around",
    "confirm",
    "device_of",
    "fitter",
    "follow",
    "frozen_source",
    "longer_warmup",
    "make",
    "may_be_tried",
    "measure_checkpoints",
    "measured",
    "memory",
    "memory_limit",
    "memory_there",
    "model_shape",
    "open_run",
    "open_store_of",
    "outcome",
    "plan_of",
    "planned_schedule",
    "planned_warmup_steps",
    "preflight",
    "refuse_oversized",
    "resolve",
    "run_range_tests",
    "schedule_words",
    "stopwatch",
    "token_store",
    "tokenizer_trainer",
    "train",
    "trained",
]
