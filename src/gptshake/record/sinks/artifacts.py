"""What a run was made from and what came out, as W&B artifacts: tokenizer -> token store -> best weights.

The token store goes there as a description only (where the text is from, its fingerprint), never the data. Names hold content
hashes, so runs on the same text share them. Every artifact names its parents in its metadata as well, because W&B has edges
between an artifact and a run only.
"""

import json
from typing import TYPE_CHECKING, Any

from gptshake.record.run import Run

if TYPE_CHECKING:
    import wandb

_DIGEST_LETTERS = 12  # of a hash, enough to tell contents apart
_WEIGHTS = ("model.safetensors", "checksums.json")  # the optimizer's state is for going on, here


def log_inputs(mirror: "wandb.Run", run: Run) -> None:
    """Tokenizer and token store as inputs of the run."""
    import wandb

    data = run.info["data"]
    tokenizer = wandb.Artifact(_tokenizer(run), "tokenizer", metadata={"digest": data["tokenizer"], "vocab_size": data["vocab_size"]})
    tokenizer.add_dir(str(run.path / "tokenizer"))
    store = wandb.Artifact(_store(run), "token-store", metadata={**data, "made_with": _tokenizer(run)})
    with store.new_file("description.json") as file:
        json.dump(data, file, indent=2, sort_keys=True)
    for artifact in (tokenizer, store):
        # As use_artifact does it, which waits for the server and refuses offline: the use is noted with the upload, whenever that is.
        mirror._log_artifact(artifact, is_user_created=True, use_after_commit=True)


def log_weights(mirror: "wandb.Run", run: Run) -> None:
    """The weights with the lowest validation loss, if the run saved any."""
    import wandb

    summary: dict[str, Any] = run.info.get("summary") or {}
    folder = run.path / "checkpoints" / f"step-{int(summary.get('best/step') or 0):08d}"
    if not folder.is_dir():
        return
    kept = {key: value for key, value in summary.items() if isinstance(value, int | float)}
    parents = {"tokenizer": _tokenizer(run), "token-store": _store(run), "parent": run.info.get("parent")}
    artifact = wandb.Artifact(f"model-{run.id}", "model", metadata={**kept, "run": run.name, "trained_on": parents})
    for name in _WEIGHTS:
        artifact.add_file(str(folder / name))
    mirror.log_artifact(artifact, aliases=["best"])


def _tokenizer(run: Run) -> str:
    return f"tokenizer-{run.info['data']['tokenizer'][:_DIGEST_LETTERS]}"


def _store(run: Run) -> str:
    return f"tokens-{run.info['data']['store'][:_DIGEST_LETTERS]}"
