"""gptshake's own task function of a sweep: what a study must know before its first trial, and how one trial runs.

A trial is an ordinary run in the study's folder. Begun anew or continued from its checkpoint, it runs the code, config and
uncommitted changes of the moment when the sweep began.
"""

import os
import pkgutil
import shutil
from base64 import b85decode, b85encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from gptshake.config.compose import choices, without_hydra
from gptshake.config.compose_errors import checked_compose, parse_overrides
from gptshake.config.layout import GROUPS
from gptshake.config.multirun import each_point, set_values
from gptshake.config.overrides import refuse_other_defaults
from gptshake.config.validate import check, check_one_device
from gptshake.context import Context, RunSpec
from gptshake.data.store import TokenStore
from gptshake.errors import ConfigError, UserError
from gptshake.estimate import laws
from gptshake.estimate.forecast import Speed, run_seconds
from gptshake.estimate.memory import checkpoint_bytes
from gptshake.files import expanded
from gptshake.keys import AUTO, key_of
from gptshake.record.git import Code
from gptshake.record.names import new_id, run_name
from gptshake.record.run import steps_saved
from gptshake.setup import costs, make_plan, open_store, resolve, schedule
from gptshake.setup.initial import initial_weights
from gptshake.setup.instantiate import device_of
from gptshake.setup.run import check_parts
from gptshake.sweep.protocols import Host, Prepared
from gptshake.sweep.space import is_configured_range, kept

BATCH = ("data.batch_size", "data.batch_tokens", "model.block_size")  # what changes the tokens of a step
COSTS = (
    *("model", "data", "tokenizer", "trainer", "experiment", "data.path", "data.dataset", "tokenizer.path", "trainer.accelerator"),
    *("optimizer", "optimizer._target_"),
    *("trainer.precision", "trainer.max_steps", "trainer.max_epochs", "trainer.max_tokens", "trainer.hours"),
    "init_from",  # costs the same, but which folder or commit it means is found out and kept for each
)
STEPS, INTERVAL = "trainer.max_steps", "trainer.val_check_interval"
LR = "optimizer.lr"
AROUND = 300  # factor around the configured rate that a range of AdamW becomes with another optimizer
TRIAL_START = 1.0  # seconds: its process is forked with everything imported


@dataclass(eq=False)
class Trials(Host):
    """gptshake's task function of a sweep."""

    name: str = field()  # readable part of a study's default name; a field of its own, as the default of a host is none here
    label: str  # what the data really is, as the source says
    provenance: dict[str, Any]  # collected once for all trials
    code: Code  # that they run
    local_conf: dict[str, bytes]  # the user's own files: config that they compose from, Python that it names
    experiment_files: dict[str, list[str]]  # files of ``experiment=`` that are swept: override -> what it means, for the record
    dirty: bool = field()  # whether a study may be resumed with other code
    folder: Path | None = None  # of the study, once it has begun

    def plain(self) -> dict[str, Any]:
        fields = {key: getattr(self, key) for key in ("name", "label", "provenance", "experiment_files", "dirty")}
        code = {
            "git": self.code.git,
            "files": self.code.files,
            "patch": b85encode(self.code.patch).decode(),
            "untracked": _texts(self.code.untracked),
        }
        return fields | {"code": code, "local_conf": _texts(self.local_conf)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Trials":
        files, local_conf = (
            {name: b85decode(text) for name, text in texts.items()} for texts in (plain["code"]["untracked"], plain["local_conf"])
        )
        code = Code(plain["code"]["git"], plain["code"]["files"], b85decode(plain["code"]["patch"]), files)
        return cls(**(plain | {"code": code, "local_conf": local_conf}))

    def modules(self) -> list[str]:
        """Every module of the package, so that a later edit is not imported by a later trial."""
        ours = [name for _, name, _ in pkgutil.walk_packages(gptshake.__path__, "gptshake.") if name != "gptshake.__main__"]
        own = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in self.local_conf if name.endswith(".py")]
        return [*ours, "torch.utils.data", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", *own]

    def version(self) -> dict[str, Any]:
        git = self.provenance.get("git", {})
        changes = git.get("diff_sha256") or git.get("code_sha256")
        return {"version": self.provenance.get("version"), "commit": git.get("commit"), "changes": changes}

    def on_start(self, folder: Path) -> None:
        """Keep the uncommitted changes of this moment for all trials."""
        self.folder = folder
        self.code.save(folder)

    def check_begun(self, folder: Path, overrides: Sequence[str], study: str) -> None:
        if (folder / "config.yaml").exists() and not self.experiment_files:  # these are composed by the runs alone
            refuse_other_defaults(checked_compose([text for text in overrides if key_of(text) != "dirty"]), folder, study)

    def changes_cost(self, key: str) -> bool:
        """Whether another value is another model, other data, another length or another way to run."""
        return key in COSTS

    def prepare(self, composed: DictConfig, swept: Sequence[str], listed: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Build the token store once, freeze ``auto``, time a few steps, and check every point; called in a child, so torch may run."""
        cfg = without_hydra(composed)
        check(cfg)
        points = each_point(list(composed.hydra.overrides.task), parse_overrides(list(swept)), cfg.copy(), listed)
        _one_sample(cfg, composed.hydra.overrides.task)
        base, interval = hardware.resident_bytes(), cfg.trainer.val_check_interval
        keys = ["accelerator", "precision"]
        if cfg.trainer.threads != AUTO:  # of an experiment file, where they are swept
            keys.append("threads")
        else:  # those of a slot, which the executor has set: more than a trial gets would measure another speed
            cfg.trainer.threads = int(os.environ.get("OMP_NUM_THREADS", hardware.physical_cores()))
        store = resolve.token_store(cfg, [])
        budget = resolve.resolve(cfg, store, costs.speed_here)
        costs.check_run_capacity(cfg, store, budget, expanded(cfg.paths.multirun))
        model, trainer = costs.model_costs(cfg, store.tokenizer.vocab_size), cfg.trainer
        speed, overhead = costs.speed_here(store, cfg, budget), costs.overhead(cfg, store, model, budget)
        parts = run_seconds(budget.steps, budget.accumulation, speed, overhead)
        frozen = resolve.resolved_source(cfg) | resolve.resolved_initial_paths(cfg) | {f"trainer.{key}": trainer[key] for key in keys}
        if budget.measured:
            frozen |= {"trainer.hours": None, STEPS: budget.steps}
        n, characters = model.num_params(non_embedding=True), store.bytes_per_token < laws.CHARACTERS
        recommended, device = laws.recommended_lr(n, budget.total_tokens, budget.tokens_per_step, characters=characters), device_of(cfg)
        expected = costs.memory(cfg, model, budget.micro_batch_size, hardware.CUDA_CONTEXT if device == "cuda" else base)
        found: dict[str, Any] = {
            "frozen": [f"{key}={override_value(value)}" for key, value in frozen.items()],
            "declared": {
                **{key: OmegaConf.select(cfg, key) for key in (*BATCH, LR)},
                STEPS: budget.steps if budget.measured or budget.stop_rule == "max_steps" else None,
                INTERVAL: interval if isinstance(interval, int) else None,
                "tokens_per_step": budget.tokens_per_step,
            },
            "ranges": ranges_here(cfg, recommended, swept),
            "schedule": schedule.schedule_text(cfg, budget),
            "warmer": schedule.longer_warmup(cfg, budget),
            "label": " · ".join([*self.name.split("-"), store.label]),
            "device": device,
            "tokens": budget.total_tokens,
            "seconds": sum(parts.values()) - parts["start"] - parts["test"] + TRIAL_START,
            "memory": expected.total or expected.least,
            "disk": checkpoint_bytes(model),
        }
        self._check_points(points, Prepared(**found), speed)
        return found

    def _check_points(self, points: Iterable[tuple[Sequence[str], DictConfig]], prepared: Prepared, speed: Speed) -> None:
        """Refuse what the text or this machine rules out, before the first trial: each point is looked at as its trial will do first.

        What only a step shows stays unknown: whether it compiles, its real memory, a loss that diverges.
        """
        stores, seen = dict[str, TokenStore](), set[frozenset[str]]()
        for texts, cfg in points:
            keys = {key_of(text) for text in texts}
            set_values(cfg, [text for text in kept(prepared.frozen, texts) if key_of(text) not in keys])
            set_values(cfg, self.comparable({key: OmegaConf.select(cfg, key) for key in keys}, prepared))
            try:
                made_from = [OmegaConf.to_container(node, resolve=True) for node in (cfg.tokenizer, cfg.data.documents)]
                tokens = str([*made_from, cfg.data.split, cfg.data.val_fraction, cfg.data.test_fraction])
                if tokens not in stores:
                    stores[tokens] = resolve.token_store(cfg, [])
                    if cfg.init_from:
                        initial_weights(cfg, stores[tokens].tokenizer, {})
                budget = resolve.resolve(cfg, stores[tokens], lambda *_: speed, tries=False)
                costs.check_run_capacity(cfg, stores[tokens], budget, expanded(cfg.paths.multirun))
                options = frozenset(text for text in texts if key_of(text) in GROUPS)
                if options not in seen:  # the same parts with other values: what they are called with is the same
                    check_parts(cfg, stores[tokens], budget)
                seen.add(options)
            except UserError as error:
                if not texts or any(key in str(error) for key in keys):
                    raise
                raise type(error)(f"{' '.join(texts)}: {error}") from error

    def comparable(self, params: Mapping[str, Any], prepared: Prepared) -> list[str]:
        """Equal tokens for every batch: steps become tokens at the configured batch, and so does the interval of validations."""
        if not any(key in params for key in BATCH):
            return []
        declared, texts = prepared.declared, list[str]()
        if declared[STEPS] is not None:
            texts = [f"{STEPS}=null", "trainer.max_epochs=null", f"trainer.max_tokens={prepared.tokens}"]
        if declared[INTERVAL] is not None:
            sizes = {key: float(params[key]) if str(params.get(key, "")).isdigit() else declared[key] for key in BATCH}
            tokens = float(sizes["data.batch_tokens"] or sizes["data.batch_size"] * sizes["model.block_size"])  # of a step at this point
            texts.append(f"{INTERVAL}={max(1, round(declared[INTERVAL] * declared['tokens_per_step'] / tokens))}")
        return texts

    def __call__(self, cfg: DictConfig) -> Any:
        """Run one trial, or resume it."""
        hydra_cfg = HydraConfig.get()
        path = Path(hydra_cfg.runtime.output_dir)
        resumes = (path / "run.json").exists() and bool(steps_saved(path))
        with open_dict(cfg):
            cfg.paths.run_dir = str(path)
        if resumes:
            overrides.freeze(cfg, path)
            overrides.refuse_differences(cfg, path)
        elif (path / "run.json").exists():  # killed before its first checkpoint: it begins anew
            for entry in path.iterdir():
                if entry.name not in ("task.json", "job.json", "output", "child.lock", "run.lock") and not entry.name.startswith("."):
                    # neither what its process keeps open, nor what somebody else is writing
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        _one_sample(cfg, hydra_cfg.overrides.task)
        check(cfg)
        check_one_device(cfg, "A trial of a sweep")
        context = Context(cfg, self._spec(path, resumes=resumes), open_store, make_plan)
        return get_method(cfg.task._target_)(context)

    def _spec(self, path: Path, *, resumes: bool) -> RunSpec:
        hydra_cfg = HydraConfig.get()
        trial: Any = OmegaConf.to_container(hydra_cfg.sweeper.trial)  # as ``child.locate`` wrote it
        typed: Any = OmegaConf.to_container(hydra_cfg.overrides.task, resolve=False)
        from_files = [line for text in typed for line in self.experiment_files.get(text, ())]
        chosen, identity = choices(hydra_cfg), new_id()
        changes = [f"{key}={value}" for key, value in trial["params"].items() if key not in ("model", "data")]
        return RunSpec(
            identity,
            run_name(chosen.get("model", "model"), chosen.get("data", "data"), self.label, changes, identity, datetime.now()),
            path,
            from_files + [text for text in typed if key_of(text) != "paths.run_dir" and text not in self.experiment_files],
            chosen,
            self.provenance,
            resumes=resumes,
            trial={key: trial[key] for key in ("study", "number", "repeat", "params")},
            code=self.code,
            local_conf=self.local_conf,
        )


def ranges_here(cfg: DictConfig, law: laws.Recommendation, swept: Sequence[str]) -> dict[str, str]:
    """What ranges mean that are tagged as that of the published laws, or as AdamW's and the optimizer is another."""
    known, found = laws.hold_for(str(OmegaConf.select(cfg, "optimizer._target_"))), {}
    for key, text in (cfg.search_space or {}).items():
        value = OmegaConf.select(cfg, key)
        if key == LR and "tag(law" in str(text):
            if not known:
                raise ConfigError(
                    "search_space=law cannot work with this optimizer: published laws are for AdamW. Leave it out: optimizer.lr=range."
                )
            found[LR] = f"tag(log,interval({law.low:.2g},{law.high:.2g}))"
        elif "tag(adamw" in str(text) and not known and isinstance(value, int | float):
            if value > 0:
                found[key] = f"tag(log,interval({value / AROUND:.3g},{value * AROUND:.3g}))"
            elif any(is_configured_range(override) for override in parse_overrides(list(swept)) if override.key_or_group == key):
                raise ConfigError(
                    f"{key}=range is for AdamW; of another optimizer it lies around the configured value, which is {value:g}: "
                    f"write a range, as {key}=tag(log,interval(1e-5,1e-2))."
                )
    return found


def _texts(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: b85encode(content).decode("ascii") for name, content in files.items()}


def _one_sample(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """One text a trial, at its end, unless it was asked for otherwise: a sweep of short runs is for its numbers."""
    if "samples" in (cfg.callbacks or {}) and not any(key_of(text).startswith("callbacks") and "notify" not in text for text in overrides):
        OmegaConf.update(cfg, "callbacks.samples.times", 1)
