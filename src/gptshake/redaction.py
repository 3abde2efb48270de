"""No secret in a record, a log or a tracker: ``redact`` for texts, ``redacted`` for plain values, ``redact_code`` for sources.

A secret is known by its value (environment, .env, keys at home, what ``oc.env`` brought), by its shape or by its name. What is shorter than six
characters is not found in a text, and now and then something harmless is hidden. The environment is read anew at each call.
"""

import codecs
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

SECRET = "<secret>"
SHORTEST = 6  # characters of a value that can be distinguished from ordinary text

# Names of variables: words that say secret wherever they stand, and words that do at the end of a name.
_VARIABLE = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|WEBHOOK|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|TOKEN\d*(?=_|$)|(KEY|AUTH|PASS|PAT|COOKIE|DSN|JWT|_PWD?)S?\d*$"
)
# Names in texts, where "token" and "key" are everyday words of this project.
_NAME = (
    r"(?:(?:api|access|account|secret|private|auth|signing|encryption|wandb)[_-]?key|secret|passwd|password|passphrase|credentials?"
    r"|SharedAccessSignature|(?:api|auth|access|refresh|bearer|hf|hub|github|gitlab|wandb|bot)[_-]?token)"
)
_VALUE = r"(?![$<\[])(?:(?<=['\"])[^'\"\n]{6,}(?=['\"])|[^\s'\",;}&]{6,})"
# What is hidden only if it looks made up, with letters and digits and no number: behind an everyday word, or a name without = or :.
_MADE_UP = r"(?![+-]?[\d.,_]+(?:e[+-]?\d+)?(?![\w.]))(?=[\w~+/.=-]{0,60}\d)(?=[\w~+/.=-]{0,60}[a-z])[\w~+/.=-]{8,}"
_NAMED = re.compile(rf"(?i)({_NAME}[\w-]{{0,40}}['\"]?\s{{0,9}}[=:]\s*['\"]?|(?<![\w-])token=['\"]?|--{_NAME}\s+)({_VALUE})")
# One row for each kind of secret: what is kept of a match is its first group.
_ANYWHERE = tuple(
    re.compile(pattern)
    for pattern in (
        r"((?<![A-Za-z0-9]))(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{16,}"
        r"|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{30,}"
        r"|wandb_v\d+_[A-Za-z0-9_-]{16,}|pypi-[A-Za-z0-9_-]{30,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{5,}"
        r"|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|(?:npm|r8)_[A-Za-z0-9]{30,}|dop_v1_[0-9a-f]{32,}|ya29\.[A-Za-z0-9_-]{20,}|nvapi-[A-Za-z0-9_-]{20,}"
        r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|key-[0-9a-f]{32}|EAA[A-Za-z0-9]{40,})",
        r"(hooks\.slack\.com/services/)[A-Za-z0-9/]{16,}",
        r"(?i)(bearer |basic )[A-Za-z0-9._~+/=-]{16,}",
        r"(?i)\b([a-z][a-z0-9+.-]{1,30}://)(?!git@|<secret>@)(?:[^\s/'\"]{1,999}|[^\s/:@'\"]{1,99}:[^\s@'\"]{1,999})(?=@)",
        r"(?i)([?&;][\w-]{0,40}(?:token|key|secret|passw(?:or)?d|pwd|signature|sig|auth|credential)[\w-]{0,40}=)[^&#\s'\"]+",
    )
)
_IN_TEXTS = (
    _NAMED,
    *(
        re.compile(pattern)
        for pattern in (
            rf"(?i)((?:(?<![a-z])(?:token|pass|pwd?|pat|jwt|auth)['\"]?\s{{0,9}}[=:]\s*|(?:{_NAME}|(?:api|access) key|-(?:token|auth|pat|pass)"
            rf"|authorization: token)\s+(?:(?:is|was)\s+)?|(?:api|access) key:\s*)['\"]?){_MADE_UP}",
            r"(?i)((?<![\w-])token\s+(?:is\s+)?['\"]?)(?=[a-z]{0,60}\d)(?=\d{0,60}[a-z])[a-z0-9]{16,}(?![\w-])",
            # the same with small and capital letters and digits, where fewer will do
            r"((?<![\w-])(?:[Tt]oken|[Kk]ey|[Pp]ass|pw|[Bb]earer:?)\s+(?:(?:is|was)\s+)?['\"]?)"
            r"(?=[A-Za-z]{0,60}\d)(?=[A-Z\d]{0,60}[a-z])(?=[a-z\d]{0,60}[A-Z])[A-Za-z0-9]{8,}(?!\w)",
            r"(?i)((?<![\w-])(?:-[a-z]{0,5}u|--user|--proxy-user)[ =]?['\"]?[\w.@-]{1,60}:)(?![$<])[^\s'\":]{3,}",  # curl -u user:password
            r"(?i)(\b(?:mysql|mariadb|sshpass|mongo|\w+ login|redis-cli)\w*\b[^\n|;&]{0,200}?\s-[pa]\s?['\"]?)(?![$<-])[^\s'\"]{3,}",
            r"(?i)((?<![\w-])authorization['\"]?:\s{0,9}['\"]?(?:(?:bearer|basic|token|digest)\s+)?)(?!<secret>)(?=\S{0,99}[\d=])[^\n'\"]+",
            r"((?<![\w@:./-])[A-Za-z][\w.-]{0,60}:)(?![$<])(?=[^\s/:@'\"]{0,60}\d)[^\s/:@'\"]{6,}(?=@(?!sha256)[A-Za-z0-9][\w.-]{1,99}:)",  # user:pw@host:
            r"(?i)((?<![\w-])(?:set-)?cookie:\s{0,9}(?=[\w.-]{1,60}=))(?!<secret>)[^\n'\"]+",
        )
    ),
)
# In a program a bare word is no value.
_IN_PROGRAMS = (re.compile(rf"(?i)({_NAME}\w{{0,40}}['\"]?\]?\s{{0,9}}[=:]\s*['\"]){_VALUE}(?=['\"])"),)
_SECRET_KEY = re.compile(rf"(?i)(?:{_NAME}|^(?:token|pwd?|pass|pat|jwt|auth|authorization|cookie))$")  # of a mapping
_PASSWORD = re.compile(r"(?i)\b[a-z][a-z0-9+.-]{1,30}://[^\s/:@]{0,99}:([^\s/@]{1,999})@")  # of an address, by itself
_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")  # a key of W&B; or a commit, if a word before it says so
_COMMIT = re.compile(
    r"(?i)(?:commit|version|revision|rev|sha|hash|digest|index|tree|blob|ref|reference|oid)\b[^\n]{0,60}$|git fetch \S+ $|(?:\.\.|@)$"
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY.*?(?:-----END|\Z)", re.DOTALL)
_KEY_LINE = re.compile(r"[A-Za-z0-9/=][A-Za-z0-9+/=]{15,}")  # not the + that begins a line of a patch
_ONE_LINE = re.compile(r""""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""")
_STRING = re.compile(rf"""\"{{3}}[\s\S]*?\"{{3}}|'{{3}}[\s\S]*?'{{3}}|{_ONE_LINE.pattern}""")
_MARKS = (
    *((codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")),
    *((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")),
)
_ORDINARY = re.compile(r"[A-Za-z]{0,9}|[+-]?[\d.,_]*(?:[eE][+-]?\d+)?|<.*>|\[.*\]")
_DOTENV = re.compile(r"^\s*(?:export\s+)?([\w.]+)\s*=\s*(.*?)\s*$", re.MULTILINE)

_learned: set[str] = set()


def redact(text: str) -> str:
    """The text with every secret as ``<secret>``."""
    return _clean(text, _known())


def redacted(node: Any) -> Any:
    """Plain values (mappings, lists, texts) with every secret as ``<secret>``.

    The key of a text counts: one such as ``password`` makes it a secret, one such as ``commit`` allows 40 digits.
    """
    return _walk(node, "", _known())


def redact_code(content: bytes, path: str) -> bytes:
    """A source, config file or piece of a patch with its secrets as ``<secret>``, all lines in their places."""
    encoding, is_program = _encoding(content), path.endswith((".py", ".js"))
    errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
    text = content.decode(encoding, errors)
    clean = _clean(text, _known(), _IN_PROGRAMS if is_program else _IN_TEXTS)
    if is_program:
        strings = _ONE_LINE if text.startswith("diff --git ") else _STRING  # a piece of a file may begin within a string
        clean = strings.sub(lambda found: _NAMED.sub(rf"\1{SECRET}", found[0]), clean)
    return content if clean == text else clean.encode(encoding, errors)


def _encoding(content: bytes) -> str:
    """UTF-16 or UTF-32 by the byte order mark or, of Latin text, by its zeros; else UTF-8."""
    for mark, name in _MARKS:
        if content.startswith(mark):
            with suppress(ValueError):
                content.decode(name, "surrogatepass")
                return name
    head = content[:4096]
    zeros = [head[first::2].count(0) / max(1, len(head) // 2) for first in (0, 1)]
    if len(content) % 2 or max(zeros) < 0.8 or min(zeros) > 0.1:
        return "utf-8"
    return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"


def add_secret(name: str, value: str) -> None:
    """Take note of what a variable brought into the config; a number, a short word or a path that is there is no secret, nor is our own."""
    if not name.startswith("GPTSHAKE_") and (_VARIABLE.search(name.upper()) or not _is_ordinary(value)):
        _learned.add(value)


def _walk(node: Any, name: str, known: re.Pattern[str] | None) -> Any:
    if isinstance(node, Mapping):
        return {key: _walk(child, str(key), known) for key, child in node.items()}
    if isinstance(node, list | tuple):
        return [_walk(child, name, known) for child in node]
    if not isinstance(node, str):
        return node
    if _SECRET_KEY.search(name.rpartition(".")[2]) and not _is_ordinary(node) and not node.startswith("$"):
        return SECRET
    return _clean(node, known, before=f"{name} ")


def _clean(text: str, known: re.Pattern[str] | None, patterns: Sequence[re.Pattern[str]] = _IN_TEXTS, before: str = "") -> str:
    """``before`` is what stands in front of the text, as far as it tells a commit from a key."""
    text = known.sub(SECRET, text) if known else text
    text = _PRIVATE_KEY.sub(lambda found: _KEY_LINE.sub(SECRET, found[0]), text)
    for pattern in _ANYWHERE:
        text = pattern.sub(rf"\1{SECRET}", text)
    whole = before + text

    def hide(found: re.Match[str]) -> str:
        position = len(before) + found.start()
        return found[0] if _COMMIT.search(whole[max(0, position - 80) : position].rpartition("\n")[2]) else SECRET

    text = _HEX.sub(hide, text)
    for pattern in patterns:
        text = pattern.sub(rf"\1{SECRET}", text)
    return text


def _known() -> re.Pattern[str] | None:
    """What matches every value that is a secret by where it stands."""
    found = set(_learned)
    for name, value in os.environ.items():
        found |= {value} if _VARIABLE.search(name.upper()) and not _is_path(value) else set()
        found.update(_PASSWORD.findall(value))
    # Everything that ``.env`` and its like in the working directory hold.
    places = [entry for folder in (Path(), Path("conf")) for entry in folder.glob(".env*")]
    for file in (file for entry in places for file in (sorted(entry.rglob("*")) if entry.is_dir() else [entry])):
        for name, value in _DOTENV.findall(_read(file)):
            value = value[1:-1] if value[:1] in ("'", '"') and value[-1:] == value[:1] else value.partition(" #")[0].rstrip()
            if not _is_ordinary(value) or (_VARIABLE.search(name.upper()) and not _is_path(value)):
                found.add(value)
    # The keys that ``wandb login`` and ``hf auth login`` keep in a user's home.
    found.update(re.findall(r"\bpassword\s+(\S+)", _read(Path(os.environ.get("NETRC") or "~/.netrc").expanduser())))
    hub = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    found.add(_read(Path(os.environ.get("HF_TOKEN_PATH") or hub / "token")).strip())
    values = frozenset(value for value in found if len(value) >= SHORTEST)
    return _pattern(values) if values else None


@lru_cache(maxsize=8)
def _pattern(values: frozenset[str]) -> re.Pattern[str]:
    forms: set[str] = set()
    for value in values:
        lines = [line.strip() for line in value.splitlines() if len(line.strip()) >= SHORTEST and not line.startswith("-----")]
        for part in (value, *lines):  # as it is, in Hydra's quotes, in an address, in JSON
            forms |= {part, part.replace("'", "\\'"), quote(part, safe=""), json.dumps(part)[1:-1]}
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))


def _read(file: Path) -> str:
    """Up to a megabyte; nothing of what is not there, no regular file (a FIFO never ends), or not ours to read."""
    try:
        with file.open(encoding="utf-8", errors="replace") if file.is_file() else io.StringIO() as opened:
            return opened.read(1 << 20)
    except OSError:
        return ""


def _is_ordinary(value: str) -> bool:
    """Whether a value may be shown that no name calls a secret: a short word, a number, a path that is there."""
    return _ORDINARY.fullmatch(value) is not None or _is_path(value)


def _is_path(value: str) -> bool:
    try:
        return "/" in value and Path(os.path.expanduser(value)).exists()  # noqa: PTH111 -- Path raises on an unknown ~name
    except (OSError, RuntimeError):  # too long for a name, or somebody's home who is not here
        return False
