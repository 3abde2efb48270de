"""Which config keys matter to what: one table for resume, for hashes and differences of configs, and for studies.

A key that has no row may do none of the three. A row holds for the packaged part only: data, a trainer or a callback of
the user's own may mean anything by a key of the same name.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

RESUME, RESULT, STUDY = "resume", "result", "study"  # may change on resume | cannot change a result | is no part of a study

TABLE: dict[str, tuple[str, ...]] = {
    "paths": (RESUME, RESULT, STUDY),
    "data.documents.cache": (RESUME, RESULT, STUDY),
    "logger": (RESUME, RESULT, STUDY),
    "note": (RESUME, RESULT, STUDY),
    "dirty": (RESUME, RESULT, STUDY),
    "resume": (RESUME, RESULT, STUDY),
    "conf_shadow": (RESUME, RESULT, STUDY),  # what the files say is in their keys
    "study": (RESUME, RESULT, STUDY),
    "hydra": (RESULT,),
    "sampler": (RESUME, RESULT),
    "pruner": (RESUME, RESULT),
    "executor": (RESUME, RESULT),
    "search_space": (RESUME, RESULT),
    "task": (RESUME, RESULT),
    "debug": (RESUME, RESULT),
    "experiment": (RESULT,),  # written out in other keys, as is debug
    "preset": (RESULT,),  # lr and batch sizes have taken it over
    "callbacks.progress": (RESUME, RESULT, STUDY),
    "callbacks.samples": (RESUME, RESULT, STUDY),
    "callbacks.advice": (RESUME, RESULT, STUDY),
    "callbacks.plots": (RESUME, RESULT, STUDY),
    "callbacks.noise_scale": (RESUME, RESULT, STUDY),
    "data.path": (RESUME,),  # the fingerprint of the text must be the same
    "data.documents.path": (RESUME,),
    "data.workers": (RESUME, RESULT, STUDY),
    "data.verify": (RESUME, RESULT, STUDY),
    "trainer.save_minutes": (RESUME, RESULT, STUDY),
    "trainer.price_per_hour": (RESUME, RESULT, STUDY),
    "trainer.devices": (RESUME,),  # these three change rounding
    "trainer.strategy": (RESUME,),
    "trainer.threads": (RESUME,),
    "trainer.max_steps": (RESUME,),  # setup/lifecycle.py refuses what would bend the schedule
    "trainer.max_epochs": (RESUME,),
    "trainer.max_tokens": (RESUME,),
    "trainer.max_time": (RESUME,),
    "trainer.extend": (RESUME, RESULT),  # the limit that it belongs to counts
    "trainer.patience": (RESUME,),
}
CALLBACKS = ("default", "none", "noise_scale")  # packaged options of the group: they hold the callbacks above
_OWN = {"callbacks": 2, "data": 1, "trainer": 1}  # group -> parts of the key of the node that has the _target_


def is_free(key: str, question: str, *configs: Mapping[str, Any]) -> bool:
    """Whether a key, or a group, is free with regard to one of the three questions.

    Args:
        key: dotted.
        question: RESUME, RESULT or STUDY.
        configs: flat configs that the key is from; a part that is not packaged in one of them has no free key.
    """
    parts = key.split(".")
    if key == "callbacks" or key.endswith("._partial_"):
        return True  # an empty mapping; how a function is called
    if question not in _row(key):
        return False
    part = ".".join(parts[: _OWN.get(parts[0], 0)])
    targets = (config.get(f"{part}._target_") for config in configs if part)
    return all(target is None or str(target).startswith("gptshake.") for target in targets)


@cache
def _row(key: str) -> tuple[str, ...]:
    parts = key.split(".")
    return next((TABLE[name] for name in (".".join(parts[:n]) for n in range(len(parts), 0, -1)) if name in TABLE), ())


def key_of(override: str) -> str:
    """The dotted key of an override, without Hydra's ``+`` and ``~`` signs: ``++a.b=1`` gives ``a.b``."""
    return override.split("=", 1)[0].lstrip("+~")


def about(overrides: Iterable[str], question: str) -> list[str]:
    """The overrides that are not free with regard to one of the three questions."""
    kept = []
    for text in overrides:
        key, value = key_of(text), text.partition("=")[2]
        if not is_free(key, question) or (key == "callbacks" and value not in CALLBACKS) or key.endswith("._target_"):
            kept.append(text)
    return kept
