"""Models in the layout of transformers, in a folder or on the Hugging Face hub: found for ``init_from=hf:``, uploaded for ``task.push``.

The hub's own client downloads and keeps them; what is kept needs no network. Pickles are never read, because they can run code.
"""

import json
from functools import cache
from pathlib import Path

from gptshake.errors import ConfigError, DataError, Unreachable, first_line
from gptshake.files import expanded, read_text
from gptshake.model.config import GPTConfig, shape_from_hf

HF = "hf:"
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
INDEX, SHARDS = f"{WEIGHTS}.index.json", "model-*.safetensors"  # of weights in several files
LARGEST = 1 << 20  # bytes of a config.json, which has one kB, and of an index, which has 100 bytes for each tensor


@cache
def located(source: str, files: tuple[str, ...] = (CONFIG,)) -> Path:
    """The folder that ``hf:folder`` names; of a model of the hub, ``hf:name`` or ``hf:name@revision``, with those of its files that are there.

    Raises:
        Unreachable: there is no such folder or model, or the hub does not answer and the files were not downloaded before.
    """
    if (folder := expanded(source.removeprefix(HF))).is_dir():
        return folder.resolve()
    from huggingface_hub import snapshot_download

    name, _, revision = source.removeprefix(HF).partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(files)))
    except Exception as error:  # the hub's client and its libraries each have an error tree of their own
        raise Unreachable(
            f"{source} is no folder, and could not be downloaded from the hub ({type(error).__name__}: {first_line(error)[:300]}). Check the "
            "name and the network; for a private or gated model log in with `hf auth login` or set HF_TOKEN."
        ) from error


def pinned(source: str) -> str:
    """``hf:name`` with the commit that it means now, ``hf:name@commit``; of a folder its absolute path."""
    folder = located(source)
    return f"{HF}{folder}" if expanded(source.removeprefix(HF)).is_dir() else f"{source.partition('@')[0]}@{folder.name}"


def read_shape(source: str) -> GPTConfig:
    """The shape that a model's config.json gives; errors as in ``shape_from_hf``.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return shape_from_hf(dict(json.loads(read_text(located(source) / CONFIG, LARGEST))))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{source}: its {CONFIG} cannot be read ({first_line(error)}). Name a folder that transformers' save_pretrained wrote."
        ) from error


def weights_files(source: str) -> list[Path]:
    """The files of a model's weights, downloaded if need be; its tokenizer.json is then beside them, if there is one.

    Raises:
        DataError: there are no weights in safetensors, or not all of the files that their index names.
    """
    folder = located(source, (CONFIG, TOKENIZER, WEIGHTS, INDEX, SHARDS))
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise DataError(
            f"{source} has no {WEIGHTS}. Pickles (pytorch_model.bin) are never read, because they can run code: save the model with "
            "transformers' save_pretrained."
        )
    try:
        names = sorted(set(json.loads(read_text(folder / INDEX, LARGEST))["weight_map"].values()))
        lacking = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder / INDEX} cannot be read ({type(error).__name__}: {first_line(error)}).") from error
    if lacking or not names:
        what = f"{', '.join(lacking[:3])}, which is no file beside it" if names else "no file"
        raise DataError(f"{source} is not whole: its {INDEX} names {what}. Copy all files of the model.")
    return [folder / name for name in names]


def check_upload(repo: str) -> None:
    """Refuse a name that no repository of the hub can have, and to go on without a token."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"task.push={repo} cannot be the name of a repository: write <user>/<name> ({first_line(error)}).") from error
    if get_token() is None:
        raise ConfigError("task.push needs a token of the hub that may write: log in with `hf auth login`, or set HF_TOKEN.")


def upload(folder: Path, repo: str, *, private: bool) -> str:
    """Upload a folder to a repository of the hub, which is made if need be (``private``: for its owner alone), and give its address.

    Raises:
        Unreachable: the hub does not answer, or refuses.
    """
    from huggingface_hub import HfApi

    try:
        made = HfApi().create_repo(repo, private=private, exist_ok=True)
        HfApi().upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Exported by gptshake")
        return str(made)
    except Exception as error:  # as above
        raise Unreachable(
            f"{folder} is written, but could not be uploaded to {repo} ({type(error).__name__}: {first_line(error)[:300]}). Check the name and "
            f"the token, then upload it with `hf upload {'--private ' if private else ''}{repo} {folder}`."
        ) from error
