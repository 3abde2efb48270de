"""Where a run comes from, beside the code that git knows: version, installed files, interpreter, libraries, driver.

No library is imported to ask its version: the names of the folders that pip leaves beside them say it, in a millisecond.
"""

import json
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptshake import __version__
from gptshake.energy import driver
from gptshake.files import sha256_text
from gptshake.hardware import cpu_name
from gptshake.keys import RESULT, is_free
from gptshake.record.git import Code, code_sha256, read_workspace
from gptshake.record.index import flat

CONFIG_HASH = 2  # version of ``config_sha256``; a record without one has that of an earlier choice of keys
_DISTRIBUTION = re.compile(r"(.+?)-([^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info")
_CUDA = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")


def collect(code: Code) -> dict[str, Any]:
    """Version, git, environment: plain values for run.json; code that git does not know is hashed."""
    installed = packages()
    return {
        "version": __version__,
        "git": code.git | ({"code_sha256": code_sha256()} if "unversioned" in code.git else {}),
        "workspace": read_workspace(),
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": installed,
            "cuda": next((installed[name] for name in _CUDA if name in installed), None),
            "driver": driver(),
            "cpu": cpu_name(),
            "cwd": str(Path.cwd()),
        },
    }


def config_sha256(config: Mapping[str, Any]) -> str:
    """One hash over what a resolved config says of a run's numbers: equal wherever, whenever and for whatever reason it is run.

    Two configs have one hash if and only if ``report.changes`` finds no difference between them; null is as good as absent.
    """
    values = flat(config)
    about = {key: value for key, value in values.items() if value is not None and not is_free(key, RESULT, values)}
    return sha256_text(json.dumps(about, sort_keys=True, default=str))


def packages() -> dict[str, str]:
    """Every installed distribution with its version, by normalised name (``pytorch-lightning``); the first on the path counts."""
    found: dict[str, str] = {}
    for folder in filter(Path.is_dir, map(Path, sys.path)):
        for match in filter(None, (_DISTRIBUTION.fullmatch(entry.name) for entry in folder.iterdir())):
            found.setdefault(re.sub(r"[-_.]+", "-", match[1]).lower(), match[2])
    return dict(sorted(found.items()))
