"""gptshake's own task function of a sweep: what a study must know before its first trial, and how one trial runs.

A trial is an ordinary run in the study's folder. Begun anew or continued from its checkpoint, it runs the code, config and
uncommitted changes of the moment when the sweep began.
"""

import os
import pkgutil
import shutil
from base64 import b85decode, b85encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf, open_dict

import gptshake
from gptshake import hardware
from gptshake.config import overrides
from gptshake.config.arguments import override_value
from gptshake.config.compose import choices
from gptshake.config.validate import check, check_one_device
from gptshake.context import Context, Launch
from gptshake.estimate import laws
from gptshake.estimate.budget import AUTO, Budget
from gptshake.estimate.forecast import run_seconds
from gptshake.estimate.memory import checkpoint_bytes
from gptshake.files import expanded
from gptshake.keys import key_of
from gptshake.model.config import Costs
from gptshake.record.git import Code
from gptshake.record.names import new_id, run_name
from gptshake.setup import costs, resolve, schedule
from gptshake.setup.instantiate import device_of
from gptshake.sweep.app import Prepared

BATCH = ("data.batch_size", "data.batch_tokens", "model.block_size")  # what changes the tokens of a step
COSTS = (
    *("model", "data", "tokenizer", "trainer", "experiment", "data.path", "data.dataset", "tokenizer.path", "trainer.accelerator"),
    *("trainer.precision", "trainer.max_steps", "trainer.max_epochs", "trainer.max_tokens", "trainer.hours"),
)
STEPS, INTERVAL = "trainer.max_steps", "trainer.val_check_interval"
LR = "optimizer.lr"
TRIAL_START = 1.0  # seconds: its process is forked with everything imported


class Trials:
    """A task function that is also a ``sweep.app.Host``.

    Args:
        name: readable part of a study's default name.
        label: what the data really is, as the source says.
        provenance: collected once for all trials.
        code: that they run.
        local_conf: the user's own files: config that they compose from, Python that it names.
        recipes: files of ``experiment=`` that are swept: override -> what it means, for the record.
        dirty: whether a study may be resumed with other code.
    """

    def __init__(
        self,
        name: str,
        label: str,
        provenance: dict[str, Any],
        code: Code,
        local_conf: dict[str, bytes],
        recipes: dict[str, list[str]],
        *,
        dirty: bool,
    ) -> None:
        self.name, self.label, self.provenance, self.dirty = name, label, provenance, dirty
        self.recipes = recipes
        self.uncommitted, self.local_conf = code, local_conf

    def plain(self) -> dict[str, Any]:
        """Everything as JSON, from which a child makes its own."""
        code = {"git": self.uncommitted.git, "files": self.uncommitted.files, "patch": _text(self.uncommitted.patch)}
        return {
            **{key: getattr(self, key) for key in ("name", "label", "provenance", "recipes", "dirty")},
            "code": code | {"untracked": {name: _text(content) for name, content in self.uncommitted.untracked.items()}},
            "local_conf": {name: _text(content) for name, content in self.local_conf.items()},
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Trials":
        """What ``plain`` gave."""
        stored = plain["code"]
        untracked = {name: b85decode(text) for name, text in stored["untracked"].items()}
        code = Code(stored["git"], stored["files"], b85decode(stored["patch"]), untracked)
        local_conf = {name: b85decode(text) for name, text in plain["local_conf"].items()}
        return cls(**(plain | {"code": code, "local_conf": local_conf}))

    def modules(self) -> list[str]:
        """Every module of the package, so that an edit of tomorrow is not imported by a trial of tomorrow."""
        ours = [name for _, name, _ in pkgutil.walk_packages(gptshake.__path__, "gptshake.") if name != "gptshake.__main__"]
        own = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in self.local_conf if name.endswith(".py")]
        return [*ours, "torch.utils.data", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", *own]

    def study_name(self) -> str:
        """``<model>-<data>``."""
        return self.name

    def code(self) -> dict[str, Any]:
        """Version, commit and uncommitted changes."""
        git = self.provenance.get("git", {})
        return {
            "version": self.provenance.get("version"),
            "commit": git.get("commit"),
            "changes": git.get("diff_sha256") or git.get("code_sha256"),
        }

    def may_differ(self) -> bool:
        """Whether the user said ``--dirty``."""
        return self.dirty

    def on_start(self, folder: Path) -> None:
        """Keep the uncommitted changes of this moment for all trials."""
        self.uncommitted.save(folder)

    def changes_cost(self, key: str) -> bool:
        """Whether another value is another model, other data, another length or another way to run."""
        return key in COSTS

    def prepare(self, composed: DictConfig) -> dict[str, Any]:
        """Build the token store once, freeze ``auto``, and time a few steps; called in a child, so torch may run."""
        cfg = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        check(cfg)
        _one_sample(cfg, composed.hydra.overrides.task)
        base, interval = hardware.resident_bytes(), cfg.trainer.val_check_interval
        if cfg.trainer.threads == AUTO:  # those of a slot, which the executor has set: more than a trial gets would measure another speed
            cfg.trainer.threads = int(os.environ.get("OMP_NUM_THREADS", hardware.physical_cores()))
        store = resolve.token_store(cfg, [])
        budget = resolve.resolve(cfg, store, costs.speed_here)
        costs.check_run_capacity(cfg, store, budget, expanded(cfg.paths.multirun))
        model, trainer = costs.model_costs(cfg, store.tokenizer.vocab_size), cfg.trainer
        parts = run_seconds(
            budget.steps, budget.accumulation, costs.speed_here(store, cfg, budget), costs.overhead(cfg, store, model, budget)
        )
        frozen = resolve.resolved_source(cfg) | {
            "trainer.accelerator": trainer.accelerator,
            "trainer.precision": trainer.precision,
        }
        if budget.measured:
            frozen |= {"trainer.hours": None, STEPS: budget.steps}
        device = device_of(cfg)
        expected = costs.memory(cfg, model, budget.micro_batch_size, hardware.CUDA_CONTEXT if device == "cuda" else base)
        return {
            "frozen": [f"{key}={override_value(value)}" for key, value in frozen.items()],
            "declared": {
                **{key: OmegaConf.select(cfg, key) for key in (*BATCH, LR)},
                STEPS: budget.steps if budget.measured or budget.stop_rule == "max_steps" else None,
                INTERVAL: interval if isinstance(interval, int) else None,
                "tokens_per_step": budget.tokens_per_step,
            },
            "ranges": _law_range(cfg, model, budget, store.bytes_per_token),
            "schedule": schedule.schedule_text(cfg, budget),
            "warmer": schedule.longer_warmup(cfg, budget),
            "label": " · ".join([*self.name.split("-"), store.label]),
            "device": device,
            "tokens": budget.total_tokens,
            "seconds": sum(parts.values()) - parts["start"] - parts["test"] + TRIAL_START,
            "memory": expected.total or expected.least,
            "disk": checkpoint_bytes(model),
        }

    def comparable(self, params: Mapping[str, Any], prepared: Prepared) -> list[str]:
        """Equal tokens for every batch: steps become tokens at the declared batch, and so does the interval of validations."""
        if not any(key in params for key in BATCH):
            return []
        declared, texts = prepared.declared, list[str]()
        if declared[STEPS] is not None:
            texts = [f"{STEPS}=null", "trainer.max_epochs=null", f"trainer.max_tokens={prepared.tokens}"]
        if declared[INTERVAL] is not None:
            texts.append(
                f"{INTERVAL}={max(1, round(declared[INTERVAL] * declared['tokens_per_step'] / _tokens_per_step(params, declared)))}"
            )
        return texts

    def __call__(self, cfg: DictConfig) -> Any:
        """Run one trial, or resume it."""
        hydra_cfg = HydraConfig.get()
        trial: Any = OmegaConf.to_container(hydra_cfg.sweeper.trial)
        path = Path(hydra_cfg.runtime.output_dir)
        resumes = _has_checkpoint(path)
        with open_dict(cfg):
            cfg.paths.run_dir = str(path)
        if resumes:
            overrides.freeze(cfg, path)
            overrides.refuse_differences(cfg, path)
        else:
            _clear(path)
        _one_sample(cfg, hydra_cfg.overrides.task)
        check(cfg)
        check_one_device(cfg, "A trial of a sweep")
        context = Context(cfg, self._launch(path, trial, resumes), resolve.open_store_of, resolve.plan_of)
        return get_method(cfg.task._target_)(context)

    def _launch(self, path: Path, trial: dict[str, Any], resumes: bool) -> Launch:
        hydra_cfg = HydraConfig.get()
        typed: Any = OmegaConf.to_container(hydra_cfg.overrides.task, resolve=False)
        said = [line for text in typed for line in self.recipes.get(text, ())]
        overrides = said + [text for text in typed if key_of(text) != "paths.run_dir" and text not in self.recipes]
        chosen = choices(hydra_cfg)
        identity = new_id()
        changes = [f"{key}={value}" for key, value in trial["params"].items() if key not in ("model", "data")]
        name = run_name(chosen.get("model", "model"), chosen.get("data", "data"), self.label, changes, identity, datetime.now())
        about = {key: trial[key] for key in ("study", "number", "repeat", "params")}
        return Launch(
            identity,
            name,
            path,
            overrides,
            chosen,
            self.provenance,
            resumes=resumes,
            trial=about,
            code=self.uncommitted,
            local_conf=self.local_conf,
        )


def _text(content: bytes) -> str:
    return b85encode(content).decode("ascii")


def _law_range(cfg: DictConfig, model: Costs, budget: Budget, bytes_per_token: float) -> dict[str, str]:
    """The range of the learning rate by published laws, where ``search_space`` asks for it with the tag ``law``."""
    if "tag(law" not in str((cfg.search_space or {}).get(LR, "")):
        return {}
    n = model.num_params(non_embedding=True)
    advice = laws.advised_lr(n, budget.total_tokens, budget.tokens_per_step, characters=bytes_per_token < laws.CHARACTERS)
    return {LR: f"tag(log,interval({advice.low:.2g},{advice.high:.2g}))"}


def _one_sample(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """One text a trial, at its end, unless it was asked for otherwise: a sweep of short runs is for its numbers."""
    if "samples" in (cfg.callbacks or {}) and not any(key_of(text).startswith("callbacks") for text in overrides):
        OmegaConf.update(cfg, "callbacks.samples.times", 1)


def _tokens_per_step(params: Mapping[str, Any], declared: Mapping[str, Any]) -> float:
    """Of a point that changes the batch; a size that is not a number is the declared one."""
    sizes = {key: float(params[key]) if str(params.get(key, "")).isdigit() else declared[key] for key in BATCH}
    return float(sizes["data.batch_tokens"] or sizes["data.batch_size"] * sizes["model.block_size"])


def _has_checkpoint(path: Path) -> bool:
    return (path / "run.json").exists() and any((path / "checkpoints").glob("step-*"))


def _clear(path: Path) -> None:
    """A run that was killed before its first checkpoint begins anew; what its process keeps open stays."""
    if not (path / "run.json").exists():
        return
    for entry in path.iterdir():
        if entry.name in ("task.json", "output", "child.lock", "run.lock"):
            continue
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def names(chosen: dict[str, str]) -> str:
    """The readable part of a study's name."""
    parts: Sequence[str] = (chosen.get("model", "model"), chosen.get("data", "data"))
    return "-".join(part.replace("/", "_") for part in parts)
