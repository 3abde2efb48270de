"""What a run was made from and what came out, as W&B artifacts: tokenizer -> token store -> best weights.

The token store goes there as a description only (where the text is from, its fingerprint), never the data. Names hold content
hashes, so runs on the same text share them. Every artifact names its parents in its metadata as well: W&B's own edges need a
server (``use_artifact`` refuses offline), and an offline run that is uploaded later has no others.
"""

import json
from typing import Any

from gptshake.record.run import Run
from gptshake.record.sinks.session import Session

_DIGEST_LETTERS = 12  # of a hash, enough to tell contents apart
_WEIGHTS = ("model.safetensors", "checksums.json")  # the optimizer's state is for going on, here


def log_inputs(session: Session, run: Run) -> None:
    """Tokenizer and token store as inputs of the run."""
    import wandb

    data = run.info["data"]
    tokenizer = wandb.Artifact(_tokenizer(run), "tokenizer", metadata={"digest": data["tokenizer"], "vocab_size": data["vocab_size"]})
    tokenizer.add_dir(str(run.path / "tokenizer"))
    store = wandb.Artifact(_store(run), "token-store", metadata={**data, "made_with": _tokenizer(run)})
    with store.new_file("description.json") as file:
        json.dump(data, file, indent=2, sort_keys=True)
    for artifact in (tokenizer, store):
        use = session.mirror.use_artifact if session.mode == "online" else session.mirror.log_artifact
        use(artifact)


def log_weights(session: Session, run: Run) -> None:
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
    session.mirror.log_artifact(artifact, aliases=["best"])


def _tokenizer(run: Run) -> str:
    return f"tokenizer-{run.info['data']['tokenizer'][:_DIGEST_LETTERS]}"


def _store(run: Run) -> str:
    return f"tokens-{run.info['data']['store'][:_DIGEST_LETTERS]}"
