"""Checkpoints as folders: weights and state as safetensors, everything else as JSON, and a checksum of each file.

``checkpoints/step-00000200/`` holds ``model.safetensors``, ``state.safetensors``, ``state.json`` and ``checksums.json``. Of a network
that is sharded (trainer=fsdp) every process writes its rows of each tensor, ``model-shard-00001-of-00008.safetensors`` and so on. A
folder appears whole or not at all; its checksums are verified before torch sees a byte. The newest two and the best are kept. From a
checkpoint come values only: nothing in it is imported or instantiated.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptshake.distributed import ALONE, Ranks
from gptshake.errors import CheckpointError, ConfigError, StorageError, first_line
from gptshake.files import fsync, read_text, refuse_irregular, sha256, storing, write_folder_atomic
from gptshake.record.metrics import validations
from gptshake.record.run import Run, steps_saved

LARGEST = 256 << 20  # bytes of a JSON file; a loader's state has a few kB
OURS = "gptshake"  # key of our own part of Lightning's checkpoint
_TENSOR = "__tensor__"
_OPTIMIZERS = "/optimizer_states/"  # what the names of their tensors begin with
_PLACES = "DCP_SHARDING_INFO"  # key of a file's metadata
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)  # what JSON of somebody else's may lead to


@dataclass(frozen=True)
class Shards:
    """A tensor as the rows that each process wrote, in order, mapped from their files: what nobody looks at is not read."""

    parts: list[Tensor]

    @property
    def shape(self) -> torch.Size:
        first = self.parts[0].shape
        return first if len(self.parts) == 1 else torch.Size((sum(map(len, self.parts)), *first[1:]))

    def rows(self, begin: int, end: int) -> Tensor:
        """A copy of these rows."""
        found, first = [], 0
        for part in self.parts:
            found.append(part[max(0, begin - first) : max(0, end - first)])
            first += len(part)
        return torch.cat(found)

    def whole(self) -> Tensor:
        return self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts)


def save(checkpoint: Mapping[str, Any], path: Path, ranks: Ranks = ALONE) -> None:
    """Write a checkpoint of Lightning's as a folder at ``path``.

    Args:
        ranks: the processes that each have a shard of the tensors; all must ask, and the folder appears when all have written.
    Raises:
        CheckpointError: a callback's state is more than values.
        StorageError: one of the processes could not write.
    """
    weights = {name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()}
    tensors: dict[str, Tensor] = {}
    rest = _take_tensors({key: value for key, value in checkpoint.items() if key != "state_dict"}, "", tensors)
    sharded = [name for name, tensor in tensors.items() if hasattr(tensor, "placements") and not name.startswith(_OPTIMIZERS)]
    text, refusal = "", None
    try:
        if sharded:
            raise TypeError(f"{sharded[0]} is one process's shard of a tensor")
        text = json.dumps(rest)
    except TypeError as error:
        allowed = "what state_dict() gives may hold numbers, texts, lists, mappings and whole tensors"
        refusal = CheckpointError(f"The state of a callback cannot be saved ({error}): {allowed}.")
    ranks.gather(refusal)
    shards = {"model": _shard(weights, ranks), "state": _shard(tensors, ranks)}

    def write(folder: Path) -> dict[str, str] | StorageError:
        """What this process has of it: file -> checksum; the others must hear of an error, too."""
        sums = {}
        try:
            with storing(path):
                for kind, (parts, places) in shards.items():
                    file = folder / _names(kind, ranks.size)[ranks.rank]
                    save_file(_apart(parts), file, metadata=places)
                    file.chmod(folder.stat().st_mode & 0o666)  # as the umask says; safetensors writes for the owner alone
                    fsync(file)
                    sums[file.name] = sha256(file)
        except StorageError as error:
            return error
        except (OSError, SafetensorError) as error:
            return StorageError(f"The checkpoint {path} could not be written ({first_line(error)}); the one before is kept.")
        return sums

    def share(folder: Path) -> dict[str, str]:
        written: list[dict[str, str]] = ranks.gather(write(ranks.broadcast(folder)))
        return {name: digest for one in written for name, digest in one.items()}

    def fill(folder: Path) -> None:
        (folder / "state.json").write_text(text)
        sums = share(folder) | {"state.json": sha256(folder / "state.json")}
        (folder / "checksums.json").write_text(json.dumps(sums))

    if ranks.rank == 0:
        write_folder_atomic(path, fill)
    else:
        share(path)


def load(folder: Path, ranks: Ranks | None = None) -> dict[str, Any]:
    """Read a checkpoint folder.

    Args:
        ranks: the processes that read it together, of which each takes its rows of weights and moments out of ``Shards``; None: they
            are given as whole tensors.
    Raises:
        CheckpointError: it is damaged.
    """
    verify(folder, ranks or ALONE)
    with _reading(folder):
        tensors = read_shards(folder, "state").items()
        values = {name: shards if ranks and name.startswith(_OPTIMIZERS) else shards.whole() for name, shards in tensors}
        checkpoint: dict[str, Any] = _put_tensors(_json(folder / "state.json"), values)
    weights = read_shards(folder, "model") if ranks else load_weights(folder)
    checkpoint["state_dict"] = {f"model.{name}": tensor for name, tensor in weights.items()}
    return checkpoint


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a verified checkpoint, in main memory."""
    return {name: shards.whole() for name, shards in read_shards(folder, "model").items()}


def weights_bytes(folder: Path) -> int:
    """Size of the files with the weights of a verified checkpoint."""
    return sum(file.stat().st_size for file in folder.glob("model*.safetensors"))


def read_shards(folder: Path, kind: str) -> dict[str, Shards]:
    """The tensors of a verified checkpoint: the weights if ``kind`` is ``model``, those of the optimizer and the callbacks if it is ``state``."""
    found: dict[str, list[tuple[Tensor, Any]]] = {}
    with _reading(folder):
        names = _names(kind, len(_json(folder / "checksums.json")) // 2)  # each process wrote two files
        for name in names:
            tensors = load_tensors(folder / name)
            with safe_open(folder / name, "pt") as file:
                places = json.loads((file.metadata() or {}).get(_PLACES, "{}"))
            for key, part in tensors.items():
                found.setdefault(key, []).append((part, places.get(key)))
        for key, parts in found.items():
            if not _are_whole(parts, len(names)):
                raise CheckpointError(f"The checkpoint {folder.name} is none of gptshake's: its shards of {key} do not fit together.")
    return {key: Shards([part for part, _ in parts]) for key, parts in found.items()}


def _are_whole(parts: Sequence[tuple[Tensor, Any]], n_shards: int) -> bool:
    """Whether the parts of a tensor, each with its place as ``_shard`` writes it, are all of it and in order."""
    tensors = [part for part, _ in parts]
    alike = len({(part.dtype, part.shape[1:]) for part in tensors}) == 1
    if len(parts) > 1 and not (alike and tensors[0].ndim and len(parts) == n_shards):
        return False
    shape, begin = [*Shards(tensors).shape], 0
    for part, place in parts:
        if place and (place["saved_offsets"][:1] != [begin][: part.ndim] or place.get("shape", shape) != shape):
            return False
        begin += len(part) if part.ndim else 0
    return True


def load_tensors(*files: Path) -> dict[str, Tensor]:
    """The tensors of verified files, mapped into main memory."""
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            found |= load_file(file)
        except SafetensorError as error:
            raise CheckpointError(f"{file} holds no tensors: {first_line(error)}.") from error
    return found


def first_row(n_rows: int, ranks: Ranks) -> int:
    """Where the rows of a process begin, as torch.chunk and FSDP divide them."""
    return min(n_rows, ranks.rank * -(-n_rows // ranks.size))


def _names(kind: str, n_shards: int) -> list[str]:
    """The files of ``model`` or ``state``, one for each process."""
    if n_shards < 2:
        return [f"{kind}.safetensors"]
    return [f"{kind}-shard-{number:05d}-of-{n_shards:05d}.safetensors" for number in range(1, n_shards + 1)]


def _shard(tensors: Mapping[str, Tensor], ranks: Ranks) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """What one process writes: its rows of the tensors that are sharded and, if it is the first, all others.

    And where these rows begin, as torch.distributed.checkpoint's HuggingFaceStorageReader expects it in the file, with the whole's shape.
    """
    if ranks.size == 1:
        return dict(tensors), None
    parts, places = {}, {}
    for name, tensor in tensors.items():
        placed: Any = tensor
        is_sharded = hasattr(placed, "placements") and placed.placements[0].is_shard(0)
        if hasattr(placed, "placements") and not is_sharded:
            tensor = placed.full_tensor()
        if is_sharded or ranks.rank == 0:
            parts[name] = placed.to_local() if is_sharded else tensor
            begin = first_row(len(tensor), ranks) if is_sharded else 0
            places[name] = {"saved_offsets": [begin, *[0] * (tensor.ndim - 1)] if tensor.ndim else [], "shape": [*tensor.shape]}
    return parts, {_PLACES: json.dumps(places)}


def folder_of(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step-{step:08d}"


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
    why = f". {' '.join(complaints)}" if complaints else "; of a sweep only the best trials keep theirs (hydra.sweeper.keep)."
    raise CheckpointError(f"{run_dir} has no checkpoint that can be continued from{why}")


def best_checkpoint(run_dir: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint with the lowest validation loss, verified, and our own part of it."""
    folder = best_until(newest(run_dir)[0], run_dir)
    verify(folder)
    return folder, our_state(folder)


def best_until(last: Path, run_dir: Path) -> Path:
    """The checkpoint with the lowest validation loss of those until ``last``, or that one if none was validated; not verified.

    A checkpoint is written before its validation, so metrics.csv says which is the best.
    """
    state = our_state(last)
    losses = {step: loss for step, loss in validations(run_dir / "metrics.csv").items() if step <= state["steps"]}
    best = min(losses, key=losses.__getitem__) if losses else state["best_step"]
    return folder_of(run_dir, best if best in steps_saved(run_dir) else state["steps"])


def checkpoints_chosen(run_dir: Path, wanted: str) -> list[Path]:
    """The verified checkpoints of ``best``, ``last``, ``all``, or a step's number; ConfigError names the steps that there are instead."""
    if not (saved := steps_saved(run_dir)):
        raise ConfigError(f"{run_dir} has no checkpoint; of a sweep only the best trials keep theirs (hydra.sweeper.keep).")
    if wanted == "best":
        return [best_checkpoint(run_dir)[0]]
    steps = [step for step in saved if wanted in ("all", str(step)) or (wanted == "last" and step == saved[-1])]
    if not steps:
        there = ", ".join(map(str, saved))
        raise ConfigError(
            f"{run_dir.name} has no checkpoint {wanted}: it has those of the steps {there}. It is best, last, all, or a step."
        )
    folders = [folder_of(run_dir, step) for step in steps]
    for folder in folders:
        verify(folder)
    return folders


def our_state(folder: Path) -> dict[str, Any]:
    """Our own part of a checkpoint: steps, tokens, best loss."""
    with _reading(folder):
        state: dict[str, Any] = _json(folder / "state.json")[OURS]
        return state | {key: int(state[key]) for key in ("steps", "tokens")}


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Raise what somebody else's files lead to as an error of the checkpoint."""
    try:
        yield
    except _MALFORMED as error:
        raise CheckpointError(f"The checkpoint {folder.name} is none of gptshake's ({first_line(error)}).") from error


def _json(file: Path) -> Any:
    return json.loads(read_text(file, LARGEST))


def verify(folder: Path, ranks: Ranks = ALONE) -> None:
    """Compare every file with its checksum.

    Args:
        ranks: processes that share the files; all must ask, and all learn what one finds.
    Raises:
        CheckpointError: a file is missing or differs.
    """
    problem = ""
    try:
        sums = _json(folder / "checksums.json")
        names = [*_names("model", len(sums) // 2), *_names("state", len(sums) // 2), "state.json"]
        for name in names:
            refuse_irregular(folder / name)
        if bad := [name for name in names[ranks.rank :: ranks.size] if sha256(folder / name) != sums[name]]:
            problem = f"is damaged: {', '.join(bad)} does not match its checksum."
    except FileNotFoundError as error:
        problem = f"is not whole: {Path(error.filename).name} is missing."
    except (OSError, *_MALFORMED) as error:
        problem = f"is not whole ({error})."
    ranks.gather(CheckpointError(f"The checkpoint {folder.name} {problem}") if problem else None)


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
        run.update(redecay=None, redecays=run.info.get("redecays", 0) + 1)
        run.say(f"going back to step {step:,}, the last checkpoint before the decay (trainer.extend=redecay)")
    run.say(f"resuming after step {step:,}")
    return folder


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of which no two share their memory, as tied weights do, for that is what a file can hold; loaded, they are tied again."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone(memory_format=torch.contiguous_format) if memory in seen else tensor.contiguous()
        seen.add(memory)
    return found


def _take_tensors(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Replace tensors by their names, collected in ``tensors``; keys that are numbers are marked, JSON would make them text."""
    if isinstance(node, Tensor):
        tensors[path] = node.detach()
        return {_TENSOR: path}
    if isinstance(node, dict):
        return {f"#{key}" if isinstance(key, int) else key: _take_tensors(value, f"{path}/{key}", tensors) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_take_tensors(value, f"{path}/{index}", tensors) for index, value in enumerate(node)]
    return node


def _put_tensors(node: Any, tensors: Mapping[str, Any]) -> Any:
    if isinstance(node, dict) and _TENSOR in node:
        return tensors[node[_TENSOR]]
    if isinstance(node, dict):
        return {int(key[1:]) if key.startswith("#") else key: _put_tensors(value, tensors) for key, value in node.items()}
    return [_put_tensors(value, tensors) for value in node] if isinstance(node, list) else node
