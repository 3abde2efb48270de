"""A run becomes the command that repeats it: its stored overrides and frozen values, in another place and without its mirror.

What the repetition composes from the restored conf is compared with the stored config.yaml, key by key.
"""

from collections.abc import Mapping
from pathlib import Path

from gptshake.config.again import stored_config, stored_overrides
from gptshake.config.argv import key_of, override_value
from gptshake.errors import RecordError
from gptshake.keys import RESUME, is_free
from gptshake.redaction import SECRET

# Not the record's but today's: places, the mirror, remarks, what is about a sweep as a whole, a limit in seconds.
NOT_REPEATED = ("paths", "logger", "note", "study", "sampler", "pruner", "executor", "trainer.max_time")
# Where something lies may differ as long as it is the same thing, which its fingerprint says.
MOVED = ("init_from", "tokenizer.path", "data.path", "data.documents.path")


def repeated(run_dir: Path, own: Mapping[str, str | list[str]]) -> list[str]:
    """The overrides that give a run once more; whoever calls trusts its record.

    Args:
        run_dir: of the run to repeat.
        own: what the repetition says itself, as plain text: key -> value.
    Raises:
        RecordError: the record is not readable.
    """
    kept = [text for text in stored_overrides(run_dir, list(own), trusted=True) if not _is_one_of(key_of(text), NOT_REPEATED)]
    return [*kept, "logger=none", "trainer.max_time=null", *(f"{key}={override_value(value)}" for key, value in own.items())]


def refuse_another_config(run_dir: Path, repetition: Path) -> None:
    """Compare the config that a run had with that of its repetition.

    Raises:
        RecordError: listing what differs, outside of what cannot change a number.
    """
    then, now = stored_config(run_dir), stored_config(repetition)
    known = (
        key
        for key in sorted({*then, *now})
        if not is_free(key, RESUME, then, now) and not _is_one_of(key, MOVED) and SECRET not in str(then.get(key))
    )
    if lines := [f"  {key}: was {then.get(key)}, would be {now.get(key)}" for key in known if then.get(key) != now.get(key)]:
        listed = "\n".join(lines)
        raise RecordError(
            f"The overrides of {run_dir.name} do not give the config that it had; nothing was trained:\n{listed}\n"
            "Did your ./conf or a variable of the environment change since?"
        )


def _is_one_of(key: str, keys: tuple[str, ...]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in keys)
