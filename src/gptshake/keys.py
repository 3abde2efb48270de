"""Which config keys matter to what: one table for resume, for hashes and differences of configs, and for studies.

A key that has no row may do none of the three. A row holds for the packaged part only: data, a trainer or a callback of
the user's own may mean anything by a key of the same name.
"""

from collections.abc import Iterable, Mapping
from functools import cache

AUTO = "auto"  # the value of an option that is decided at the start
RESUME, RESULT, STUDY = "resume", "result", "study"  # may change on resume | cannot change a result | is no part of a study

_ROWS = (
    # Of conf_shadow counts what the files say, which is in their keys.
    (
        "paths data.documents.cache logger note dirty resume conf_shadow study data.workers data.verify trainer.save_minutes "
        "trainer.price_per_hour callbacks.progress callbacks.samples callbacks.advice callbacks.plots callbacks.noise_scale callbacks.notify",
        (RESUME, RESULT, STUDY),
    ),
    # A preset is written out in other keys; of trainer.extend the limit counts.
    ("sampler pruner executor search_space task debug preset trainer.extend", (RESUME, RESULT)),
    ("hydra experiment", (RESULT,)),  # experiments are written out in other keys
    # Of a text the fingerprint must be the same, of the vocabulary the tokenizer decides; devices, strategy and threads change rounding;
    # limits: see setup/lifecycle.py.
    (
        "model.vocab_size data.path data.documents.path trainer.devices trainer.strategy trainer.threads trainer.max_steps trainer.max_epochs "
        "trainer.max_tokens trainer.max_time trainer.patience",
        (RESUME,),
    ),
)
TABLE = {key: free for keys, free in _ROWS for key in keys.split()}
CALLBACKS = ("default", "none", "noise_scale", "notify")  # packaged options of the group: they hold the callbacks above
_OWN = {"callbacks": 2, "data": 1, "trainer": 1}  # group -> parts of the key of the node that has the _target_


def is_free(key: str, question: str, *configs: Mapping[str, object]) -> bool:
    """Whether a dotted key, or a group, is free with regard to RESUME, RESULT or STUDY; in a part that one of the flat configs, which the key
    is from, has from elsewhere than this package, none is.
    """
    if key == "callbacks" or key.endswith("._partial_"):
        return True  # an empty mapping; how a function is called
    if question not in _row(key):
        return False
    parts = key.split(".")
    part = ".".join(parts[: _OWN.get(parts[0], 0)])
    targets = (config.get(f"{part}._target_") for config in configs if part)
    return all(target is None or str(target).startswith("gptshake.") for target in targets)


@cache
def _row(key: str) -> tuple[str, ...]:
    parts = key.split(".")
    return next((TABLE[name] for name in (".".join(parts[:n]) for n in range(len(parts), 0, -1)) if name in TABLE), ())


def key_of(override: str) -> str:
    """The dotted key of an override, without Hydra's ``+`` and ``~`` signs: ``++a.b=1`` gives ``a.b``, ``+a@a.b=c`` gives ``a``."""
    return override.split("=", 1)[0].lstrip("+~").partition("@")[0]


def not_free(overrides: Iterable[str], question: str) -> list[str]:
    """The overrides that are not free with regard to one of the three questions."""
    return [
        text
        for text in overrides
        if not is_free(key := key_of(text), question)
        or (key == "callbacks" and text.partition("=")[2] not in CALLBACKS)
        or key.endswith("._target_")
    ]
