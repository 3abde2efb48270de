"""Checkpoints as folders: weights and state as safetensors, everything else as JSON, and a checksum of each file.

``checkpoints/step-00000200/`` holds ``model.safetensors``, ``state.safetensors``, ``state.json`` and ``checksums.json``. A folder
appears whole or not at all; its checksums are verified before torch sees a byte. The newest two and the best are kept. From a
checkpoint come values only: nothing in it is imported or instantiated.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptshake.errors import CheckpointError, ConfigError, first_line
from gptshake.files import read_text, refuse_irregular, sha256, write_folder_atomic
from gptshake.record.metrics import validations
from gptshake.record.run import Run

FILES = ("model.safetensors", "state.safetensors", "state.json")
LARGEST = 256 << 20  # bytes of a JSON file; a loader's state has a few kB
OURS = "gptshake"  # key of our own part of Lightning's checkpoint
_TENSOR = "__tensor__"
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)  # what JSON of somebody else's may lead to


class FolderCheckpointIO(CheckpointIO):
    """How Lightning writes and reads a checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint folder; CheckpointError if a callback's state is more than values."""
        weights = _apart({name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()})
        tensors: dict[str, Tensor] = {}
        rest = _take_tensors({key: value for key, value in checkpoint.items() if key != "state_dict"}, "", tensors)
        try:
            text = json.dumps(rest)
        except TypeError as error:
            raise CheckpointError(
                f"The state of a callback cannot be saved ({error}): what state_dict() gives may hold numbers, texts, lists, mappings and tensors."
            ) from error

        def fill(folder: Path) -> None:
            save_file(weights, folder / "model.safetensors")
            save_file(tensors, folder / "state.safetensors")
            (folder / "state.json").write_text(text)
            for name in FILES:
                shutil.copymode(folder / "state.json", folder / name)  # as the umask says; safetensors writes for the owner alone
            (folder / "checksums.json").write_text(json.dumps({name: sha256(folder / name) for name in FILES}))

        write_folder_atomic(Path(path), fill)

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint folder; CheckpointError if it is damaged."""
        folder = Path(path)
        verify(folder)
        try:
            checkpoint: dict[str, Any] = _put_tensors(_state(folder), load_weights(folder / "state.safetensors"))
        except _MALFORMED as error:
            raise CheckpointError(f"The checkpoint {folder.name} is none of gptshake's ({first_line(error)}).") from error
        checkpoint["state_dict"] = {f"model.{name}": tensor for name, tensor in load_weights(folder / "model.safetensors").items()}
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)


def load_weights(*paths: Path) -> dict[str, Tensor]:
    """The tensors of verified files, in main memory."""
    found: dict[str, Tensor] = {}
    for path in paths:
        try:
            found |= load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} holds no tensors: {first_line(error)}.") from error
    return found


def folder_of(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step-{step:08d}"


def steps_saved(run_dir: Path) -> list[int]:
    """Steps that have a checkpoint, oldest first; a copy that somebody keeps there is none."""
    names = (folder.name for folder in (run_dir / "checkpoints").glob("step-*"))
    return sorted(int(name.removeprefix("step-")) for name in names if re.fullmatch(r"step-\d{8,}", name, re.ASCII))


def newest(run_dir: Path, most: int | None = None) -> tuple[Path, list[str]]:
    """The newest whole checkpoint up to step ``most``, and a sentence for every damaged one passed over; CheckpointError if there is none."""
    complaints: list[str] = []
    for step in reversed(steps_saved(run_dir)):
        if most is None or step <= most:
            folder = folder_of(run_dir, step)
            try:
                verify(folder)
                return folder, complaints
            except CheckpointError as error:
                complaints.append(f"{error} Going back to the one before.")
    raise CheckpointError(f"{run_dir.name} has no checkpoint that can be continued from. {' '.join(complaints)}".strip())


def best_weights(run_dir: Path) -> tuple[Path, dict[str, Any]]:
    """The weights with the lowest validation loss (the newest if none was validated), and the state they were saved with.

    A checkpoint is written before its validation, so metrics.csv says which is the best.
    """
    state = our_state(newest(run_dir)[0])
    losses = {step: loss for step, loss in validations(run_dir / "metrics.csv").items() if step <= state["steps"]}
    best = min(losses, key=losses.__getitem__) if losses else state["best_step"]
    folder = folder_of(run_dir, best if best in steps_saved(run_dir) else state["steps"])
    verify(folder)
    return folder / "model.safetensors", our_state(folder)


def weights_chosen(run_dir: Path, wanted: str) -> list[Path]:
    """The verified weights of ``best``, ``last``, ``all``, or a step's number; ConfigError names the steps that there are instead."""
    if not (saved := steps_saved(run_dir)):
        raise ConfigError(f"{run_dir} has no checkpoint; of a sweep only the best trials keep theirs (hydra.sweeper.keep).")
    if wanted == "best":
        return [best_weights(run_dir)[0]]
    steps = [step for step in saved if wanted in ("all", str(step)) or (wanted == "last" and step == saved[-1])]
    if not steps:
        there = ", ".join(map(str, saved))
        raise ConfigError(
            f"{run_dir.name} has no checkpoint {wanted}: it has those of the steps {there}. It is best, last, all, or a step."
        )
    for step in steps:
        verify(folder_of(run_dir, step))
    return [folder_of(run_dir, step) / "model.safetensors" for step in steps]


def our_state(folder: Path) -> dict[str, Any]:
    """Our own part of a checkpoint: steps, tokens, best loss."""
    try:
        state: dict[str, Any] = _state(folder)[OURS]
        return state | {key: int(state[key]) for key in ("steps", "tokens")}
    except _MALFORMED as error:
        raise CheckpointError(f"The checkpoint {folder.name} is none of gptshake's ({first_line(error)}).") from error


def _state(folder: Path) -> Any:
    return json.loads(read_text(folder / "state.json", LARGEST))


def verify(folder: Path) -> None:
    """Compare every file with its checksum; CheckpointError if one is missing or differs."""
    try:
        sums: dict[str, str] = json.loads(read_text(folder / "checksums.json", LARGEST))
        for name in FILES:
            refuse_irregular(folder / name)
        bad = [name for name in FILES if sha256(folder / name) != sums[name]]
    except (OSError, *_MALFORMED) as error:
        raise CheckpointError(f"The checkpoint {folder.name} is not whole ({error}).") from error
    if bad:
        raise CheckpointError(f"The checkpoint {folder.name} is damaged: {', '.join(bad)} does not match its checksum.")


def keep_only(run_dir: Path, best_step: int | None, *, stable_step: int | None = None) -> None:
    """Remove checkpoints but the newest two, the best, and the last one before the rate fell."""
    for step in steps_saved(run_dir)[:-2]:
        if step not in (best_step, stable_step):
            shutil.rmtree(folder_of(run_dir, step), ignore_errors=True)


def drop_after(run_dir: Path, step: int) -> None:
    """Remove checkpoints of later steps, which a resumed run will make again, and what a kill left half-written."""
    later = [folder_of(run_dir, number) for number in steps_saved(run_dir) if number > step]
    for folder in [*(run_dir / "checkpoints").glob(".step-*"), *later]:
        shutil.rmtree(folder, ignore_errors=True)


def rewrite_counters(checkpoint: dict[str, Any], steps: int, accumulation: int) -> None:
    """Make a Lightning checkpoint say: ``steps`` steps of ``accumulation`` micro-batches are done, the epoch has begun.

    It is written while Lightning is inside a batch, or after a step was broken off; its own counters would then repeat or skip
    batches. The key names are Lightning 2.6's; a test pins them.
    """
    done = steps * accumulation
    fit = checkpoint["loops"]["fit_loop"]
    for part in ("total", "current"):
        fit["epoch_loop.batch_progress"][part].update({"ready": done, "started": done, "processed": done, "completed": done})
        fit["epoch_progress"][part].update({"ready": 1, "started": 1, "processed": 0, "completed": 0})
    fit["epoch_loop.batch_progress"]["is_last_batch"] = False
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = steps
    fit["state_dict"]["combined_loader"] = [{"micro_batches": done}]
    checkpoint["global_step"] = steps


def resume_from(run: Run) -> Path | None:
    """Cut the record back to the newest whole checkpoint, which is given; a run that was killed before its first one starts over.

    A run that is extended after its decay began goes back to the last checkpoint before that.
    """
    most = run.info.get("redecay")
    if not steps_saved(run.path):
        drop_after(run.path, 0)
        run.cut_rows(0)
        (run.path / "samples.md").unlink(missing_ok=True)  # what the untrained model wrote comes again
        run.session_starts_from(0)
        run.say("no checkpoint yet: starting over from step 0")
        return None
    folder, complaints = newest(run.path, most)
    for complaint in complaints:
        run.say(complaint)
    state = our_state(folder)
    step = state["steps"]
    drop_after(run.path, step)
    run.cut_rows(min(step, run.n_rows) if state.get("validation_due") else step)
    if state.get("validation_due") and "val/loss" not in run.last_row():  # the row is in the checkpoint, and is completed first
        run.cut_rows(step - 1)
    run.session_starts_from(step)
    if most is not None:
        run.update(redecay=None)
        run.say(f"going back to step {step:,}, the last checkpoint before the decay (trainer.extend=redecay)")
    run.say(f"resuming after step {step:,}")
    return folder


def _apart(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of which no two share their memory, as tied ones do, for that is what a file can hold; loaded, they are tied again."""
    seen: set[int] = set()
    found = {}
    for name, tensor in weights.items():
        memory = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone(memory_format=torch.contiguous_format) if memory in seen else tensor.contiguous()
        seen.add(memory)
    return found


def _take_tensors(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Replace tensors by their names, collected in ``tensors``; keys that are numbers are marked, JSON would make them text."""
    if isinstance(node, Tensor):
        tensors[path] = node.detach().cpu().clone()
        return {_TENSOR: path}
    if isinstance(node, dict):
        return {f"#{key}" if isinstance(key, int) else key: _take_tensors(value, f"{path}/{key}", tensors) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_take_tensors(value, f"{path}/{index}", tensors) for index, value in enumerate(node)]
    return node


def _put_tensors(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, dict) and _TENSOR in node:
        return tensors[node[_TENSOR]]
    if isinstance(node, dict):
        return {int(key[1:]) if key.startswith("#") else key: _put_tensors(value, tensors) for key, value in node.items()}
    return [_put_tensors(value, tensors) for value in node] if isinstance(node, list) else node
