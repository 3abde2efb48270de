"""Whether a record was made by this user on this machine: a keyed hash in run.json of what decides which code a repetition runs.

The key lies beside the cache, readable for its user alone. A record from elsewhere, or one that was edited, does not have the
hash that the key gives; without a key no record has.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

SEAL = "seal"
_SEALED = ("id", "version", "overrides", "resolved", "git")


def seal(info: Mapping[str, Any]) -> str | None:
    """The keyed hash of a record; None where no key can be kept."""
    key = _key()
    about = {name: info.get(name) for name in _SEALED} | {"cwd": (info.get("environment") or {}).get("cwd")}
    return hmac.new(key, json.dumps(about, sort_keys=True).encode(), hashlib.sha256).hexdigest() if key else None


def is_made_here(info: Mapping[str, Any]) -> bool:
    """Whether a run.json has the hash that this user's key gives."""
    with suppress(AttributeError, TypeError, ValueError, RecursionError):  # not as gptshake writes it
        expected = seal(info)
        return expected is not None and hmac.compare_digest(str(info.get(SEAL)).encode(), expected.encode())
    return False


def _key() -> bytes | None:
    cache = Path(os.environ.get("GPTSHAKE_CACHE") or "~/.cache/gptshake").expanduser().absolute()
    file = cache.with_name(f"{cache.name}.key")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "wb") as new:
                new.write(os.urandom(32))
        if not file.is_symlink() and file.stat().st_uid == os.getuid():
            key = file.read_bytes()
            return key if len(key) == 32 else None
    return None
