"""gptshake: train small GPTs from scratch, and find the learning rate and batch size that work.

    cfg = gptshake.compose(["model=tiny", "data=text_char", "data.path=book.txt"])  # words of the command line, see gptshake --help
    run = gptshake.train(cfg)                # a Run: run.metrics, run.summary, run.generate("The "), run.export("hf")
    gptshake.runs("status=ok lr>1e-3")       # a DataFrame; load_run(id) gives a Run, compare([run, "latest"]) what differs
    gptshake.evaluate(["task.run=latest"])   # a DataFrame: loss and bits per byte
    gptshake.load_study("rates").trials      # a DataFrame of a sweep, which runs from the shell: gptshake -m ... study=rates

Errors are exceptions of ``gptshake.errors``, all of them ``GptshakeError``. Importing the package imports no heavy library.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["Run", "Study", "compare", "compose", "evaluate", "load_run", "load_study", "runs", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gptshake' has no attribute {name!r}")
    return getattr(importlib.import_module("gptshake.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
