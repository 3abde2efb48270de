"""Names of runs: readable, sortable by time, and safe to type back into the shell and into Hydra's grammar."""

import re
import secrets
import string
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

_GROUPS = ("tokenizer", "optimizer", "scheduler")  # whose option says by itself what it is
_MAX_NAME = 120  # a folder's name may have 255 bytes; a person reads fewer


def new_id() -> str:
    """Eight characters of ``0-9a-z`` that no grammar takes for a number; drawn by the system, so no seed is disturbed."""
    # The first is none of a to f, i and n: 1234e567 is a number, inf and nan are, too.
    return secrets.choice("ghjklmopqrstuvwxyz") + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(7))


def task_name(target: str) -> str:
    """``train`` for ``gptshake.tasks.train.run``."""
    return target.split(".")[-2]


def run_name(model: str, data: str, label: str, changes: Sequence[str], id: str, now: datetime) -> str:
    """A run's name, as in ``20261124-0031-tiny-wiki_char-excerpt106-lr3e-4-x3k9a2pq``.

    Only ``A-Za-z0-9_.-`` occur. Model, data (options of their groups) and label (what the data really is) hold no ``-``, so that ``title``
    can take the name apart again. Of the changes, ``optimizer.lr=3e-4`` or ``lr3e-4``, as many are named as fit.
    """
    parts = [now.strftime("%Y%m%d-%H%M"), *(re.sub(r"[-.]+", "_", safe(part))[:30] or "any" for part in (model, data, label))]
    for change in sorted(changes, key=lambda change: change.partition("=")[0] not in _GROUPS):
        key, equals, value = change.lstrip("+~").partition("=")
        last = key.rpartition(".")[2]
        named = f"{last}_{value}" if last[-1:].isdigit() else last + value  # beta2_0.99, lr3e-4
        short = safe(value if key in _GROUPS else named if equals else key)[:40]
        if len("-".join([*parts, short, id])) > _MAX_NAME:
            break
        parts += [short] if short else []
    return "-".join([*parts, id])


def title(name: str) -> str:
    """A run's name for people: ``tiny · wiki_char · excerpt106 · lr3e-4``; any other name is given back as it is."""
    match = re.fullmatch(r"\d{8}-\d{4}-([^-]+)-([^-]+)-([^-]+)(?:-(.+))?-[0-9a-z]{8}", name)
    return " · ".join(filter(None, match.groups())) if match else name


def title_of(info: Mapping[str, Any]) -> str:
    """The title of a run from its record, with the name of its text in the characters that it has; the folder's name is ASCII."""
    words, label = title(str(info.get("name") or "")).split(" · "), (info.get("data") or {}).get("label")
    return " · ".join([*words[:2], str(label), *words[3:]]) if label and len(words) > 2 else " · ".join(words)


def safe(text: str) -> str:
    """The text with an underscore for whatever is not of ``A-Za-z0-9_.-``."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_-.")
