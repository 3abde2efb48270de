"""gptshake: a bench on which small GPTs are trained from scratch, and their learning rate and batch size found.

Importing the package imports no heavy library; the Python API (``api.py``) is imported when a name of it is used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["compare", "compose", "evaluate", "load_run", "load_study", "runs", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gptshake' has no attribute {name!r}")
    return getattr(importlib.import_module("gptshake.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
