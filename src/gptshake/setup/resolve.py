"""What a run is about, settled before torch is imported: source, tokenizer, token store, shape, budget, device.

So a wrong path or an impossible plan is reported at once. ``resolve`` freezes everything that was left to ``auto``, the warm-up of the
schedule in tokens.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gptshake import distributed, hardware
from gptshake.console import printable
from gptshake.context import Context
from gptshake.data.blocks import n_blocks
from gptshake.data.store import TokenStore, open_store
from gptshake.errors import ConfigError, RecordError
from gptshake.estimate.budget import AUTO, Budget, plan
from gptshake.estimate.forecast import interval_of, run_seconds, steps_within
from gptshake.estimate.formatting import counted, duration, short_count
from gptshake.estimate.memory import largest_micro_batch
from gptshake.files import expanded, yaml_text
from gptshake.model.config import Costs
from gptshake.optim.schedule import LONGEST_WARMUP, Schedule, Tokens, before_decay, planned_warmup, warmup_steps, warmup_tokens
from gptshake.record.run import Run, find_run, run_roots
from gptshake.redaction import redact
from gptshake.setup.batch_finder import AutoFit, auto_fit
from gptshake.setup.forecast import Measure, around, device_of, memory_there, model_costs, stopwatch
from gptshake.setup.instantiate import initial_run, make, trainer_of
from gptshake.tokenizer.cache import SavedTrainer
from gptshake.tokenizer.protocol import TokenizerTrainer

_MAX_PASS_FLOPS = {"cpu": 2.5e11, "cuda": 5e13, "mps": 5e12}  # of one micro-batch: seconds at most, so that progress moves


def preflight(cfg: DictConfig) -> str:
    """Make what is light and may be wrong, before anything heavy: the schedule, the tokenizer's trainer and the source.

    Returns:
        The source's label, such as ``excerpt106``.
    Raises:
        GptshakeError: what is wrong.
    """
    if cfg.scheduler is not None:
        schedule_of(cfg, settled_warmup(cfg, 10**15, 1))(1, 10**15)  # warm-ups in tokens are held against the real length later
    if cfg.tokenizer is not None:
        trainer_of(cfg)
    if cfg.init_from and not cfg.resume:  # a run that goes on knows where it was
        _refuse_another_shape(cfg, initial_run(cfg))
    return str(make(cfg.data.documents).label) if cfg.data is not None else ""


def _refuse_another_shape(cfg: DictConfig, parent: Path) -> None:
    """Hold the sizes of the network against those of the run whose weights it is to begin with; a record without them is asked later."""
    try:
        theirs = yaml.safe_load(yaml_text(parent / "config.yaml"))["model"]
        differing = [
            key for key in ("n_layer", "n_head", "n_embd", "block_size", "bias") if key in theirs and theirs[key] != cfg.model[key]
        ]
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, OmegaConfBaseException):
        return
    if differing:
        shape = " ".join(f"model.{key}={theirs[key]}" for key in differing)
        raise ConfigError(f"init_from={parent.name} has another shape; its weights fit with {shape}.")


def token_store(cfg: DictConfig, lines: list[str], own: Path | None = None) -> TokenStore:
    """Open the token store of the data and tokenizer, building it if needed; what it says is printed and kept in ``lines``.

    ``own`` is the tokenizer of a run that goes on; it stands for what ``tokenizer.path`` named when the run began.
    """

    def say(line: str) -> None:
        print(printable(redact(line)), flush=True)
        lines.append(line)

    data = cfg.data
    return open_store(
        make(data.documents),
        tokenizer_trainer(cfg, own),
        cache=expanded(cfg.paths.cache),
        split=data.split,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        verify=data.get("verify", False),
        say=say,
    )


def open_store_of(context: Context) -> TokenStore:
    """The token store of a run; one that is resumed keeps its own tokenizer."""
    launch = context.launch
    return token_store(context.config, context.lines, launch.path / "tokenizer" if launch.resumes else None)


def plan_of(context: Context) -> Budget:
    """The plan of a run, frozen in its config."""
    return resolve(context.config, context.store)


def tokenizer_trainer(cfg: DictConfig, own: Path | None = None) -> TokenizerTrainer:
    """What makes the tokenizer: the trainer of the chosen option or, with ``tokenizer.path``, what is saved there (or in ``own``).

    Raises:
        ConfigError: there is nothing, or a tokenizer of another kind than the option.
        DataError: what is there cannot be read.
    """
    trainer, wanted = trainer_of(cfg), cfg.tokenizer.get("path")
    if wanted is None:
        return trainer
    path = own or expanded(wanted)
    if not path.exists():
        try:
            path = find_run(wanted, run_roots(cfg.paths))
        except RecordError as error:
            raise ConfigError(f"tokenizer.path={wanted} is not a file, a folder or a run. {error}") from error
    return SavedTrainer(path, trainer)


def frozen_source(cfg: DictConfig) -> dict[str, Any]:
    """What the source resolved (hub or excerpt, revision, absolute path): dotted key -> value, for the keys that ``data`` has."""
    return {f"data.{key}": value for key, value in make(cfg.data.documents).resolved().items() if key in cfg.data}


def resolve(cfg: DictConfig, store: TokenStore, measure: Measure | None = None, gpu: hardware.Gpu | None = None) -> Budget:
    """Decide everything that was left to ``auto`` and freeze it in ``cfg``, so that the record holds what really ran.

    Args:
        cfg: changed in place.
        store: the opened data.
        measure: for ``trainer.hours``; by default in a child process.
        gpu: a device that is not here, to be planned for.
    Raises:
        ConfigError: a batch, a length or a device that cannot be had.
    """
    with ExitStack() as stack:  # children are begun before this process asks for a GPU
        if cfg.trainer.hours is not None and measure is None:
            measure = stack.enter_context(stopwatch(store))
        fit = None if gpu else stack.enter_context(auto_fit(cfg, store))
        return _resolve(cfg, store, measure, gpu, fit)


def _resolve(cfg: DictConfig, store: TokenStore, measure: Measure | None, gpu: hardware.Gpu | None, fit: AutoFit | None) -> Budget:
    trainer, model = cfg.trainer, model_costs(cfg, store.tokenizer.vocab_size)
    _settle_device(cfg, gpu)
    limit = cfg.data.get("limit_blocks")
    blocks = n_blocks(store.train.n_tokens, model.block_size, random_offset=offset_rule(cfg) == "random", limit=limit)
    planned = partial(
        plan,
        n_parameters=model.num_params(),
        epoch_tokens=blocks * model.block_size,
        block_size=model.block_size,
        batch_size=cfg.data.batch_size,
        batch_tokens=cfg.data.batch_tokens,
        micro_batch_size=cfg.data.micro_batch_size,
        max_micro_batch=_max_micro_batch(cfg, model, gpu),
        preset_tokens=OmegaConf.select(cfg, "preset.batch_tokens"),
        devices=trainer.devices,
        max_steps=trainer.max_steps,
        max_epochs=trainer.max_epochs,
        max_tokens=trainer.max_tokens,
    )
    budget, said = planned(), ""
    if fit:
        size, said = fit(cfg, model, budget)
        planned = partial(planned, max_micro_batch=size)
        budget = planned()
    if measure is not None and trainer.hours is not None:
        budget = _within_hours(cfg, store, model, planned, budget, measure)
    if cfg.scheduler is not None:
        planned_schedule(cfg, budget)(budget.tokens_per_step, budget.total_tokens)
    frozen = {
        "data.batch_size": budget.batch_size,
        "data.micro_batch_size": budget.micro_batch_size,
        **({"data.workers": workers(cfg)} if "workers" in cfg.data else {}),
    } | frozen_source(cfg)
    for key, value in frozen.items():
        OmegaConf.update(cfg, key, value)
    if trainer.val_check_interval == AUTO:
        trainer.val_check_interval = interval_of(budget.steps)
    return replace(budget, notes=(*budget.notes, said)) if said else budget


def _settle_device(cfg: DictConfig, gpu: hardware.Gpu | None) -> None:
    trainer = cfg.trainer
    device = "cuda" if gpu else hardware.pick_device(trainer.accelerator)
    if trainer.precision == AUTO:
        trainer.precision = (
            hardware.pick_precision(device) if gpu is None else hardware.FP16 if gpu.name in hardware.WITHOUT_BF16 else hardware.BF16
        )
        if trainer.precision == hardware.FP16 and trainer.get("strategy") == "fsdp":
            trainer.precision = hardware.FP32
    hardware.check_precision(device, trainer.precision)
    trainer.devices = _devices(cfg, device, here=gpu is None)
    if trainer.threads == AUTO:
        trainer.threads = max(1, hardware.default_threads() // trainer.devices)
    trainer.accelerator = {"cuda": "gpu"}.get(device, device)


def _devices(cfg: DictConfig, device: str, *, here: bool) -> int:
    """How many devices share a step.

    Raises:
        ConfigError: more than there are, or than the trainer can use.
    """
    wanted, strategy, launched, there = (
        cfg.trainer.devices,
        cfg.trainer.get("strategy"),
        distributed.launched(),
        hardware.device_count(device),
    )
    if strategy is None and wanted not in (1, AUTO):
        raise ConfigError(f"trainer.devices={wanted} needs a strategy: add trainer=ddp or trainer=fsdp.")
    if strategy is None:
        return 1
    if wanted == AUTO and launched == 1 and device == "cpu":
        raise ConfigError("On a CPU give the number of processes, as in trainer.devices=2.")
    count = int(wanted) if wanted != AUTO else launched if launched > 1 else there
    if launched not in (1, count):
        raise ConfigError(f"trainer.devices={count}, but torchrun started {launched} processes: leave trainer.devices out.")
    if here and count > there:
        what = "processors that this process may use" if device == "cpu" else "GPUs here" if device == "cuda" else "GPU of Apple's"
        raise ConfigError(f"trainer.devices={count} is more than the {there} {what}.")
    if strategy == "fsdp" and count > 1 and (cfg.trainer.compile or cfg.trainer.precision == "16-mixed"):
        key = "compile=true" if cfg.trainer.compile else "precision=16-mixed"
        raise ConfigError(f"trainer.{key} does not work with trainer=fsdp: leave it out, or use trainer=ddp.")
    return count


def _within_hours(
    cfg: DictConfig, store: TokenStore, model: Costs, planned: Callable[..., Budget], guess: Budget, measure: Measure
) -> Budget:
    """The budget of ``trainer.hours``, frozen as steps; an automatic batch looks at the length, so it is settled in between."""
    trainer, hours = cfg.trainer, cfg.trainer.hours
    speed = measure(cfg, guess)
    limit = steps_within(3600 * hours, guess.accumulation, speed, around(cfg, store, model, guess)) * guess.tokens_per_step
    budget = planned(max_steps=None, max_tokens=max(1, min(limit, trainer.max_tokens or limit)))
    if budget.micro_batch_size != guess.micro_batch_size:
        speed = measure(cfg, budget)
    beside = around(cfg, store, model, budget)
    steps = steps_within(3600 * hours, budget.accumulation, speed, beside)
    one = run_seconds(1, budget.accumulation, speed, beside)
    if steps < 1:
        raise ConfigError(f"trainer.hours={hours:g} is too short: one step and what is around it take {duration(sum(one.values()))} here.")
    typed = trainer.max_steps is not None and trainer.max_steps <= steps
    budget = planned(batch_size=budget.batch_size, batch_tokens=None, max_steps=trainer.max_steps if typed else steps)
    said = f"trainer.hours={hours:g}: a step takes {one['steps']:.3g} s here; {budget.steps:,} steps are kept in the record as trainer.max_steps"
    trainer.max_steps, trainer.hours = budget.steps, None
    rule = f"{hours:g} hours" if budget.stop_rule == "max_steps" and not typed else budget.stop_rule
    return replace(budget, stop_rule=rule, measured=True, notes=(*budget.notes, said))


def workers(cfg: DictConfig) -> int:
    """``auto`` is none: a batch costs less than handing it over."""
    wanted = cfg.data.get("workers", AUTO)
    return 0 if wanted == AUTO else int(wanted)


def offset_rule(cfg: DictConfig) -> str:
    """``none`` or ``random``; a data module of a user's own may not have it."""
    return str(cfg.data.get("offset", "none"))


def _max_micro_batch(cfg: DictConfig, model: Costs, gpu: hardware.Gpu | None) -> int:
    device = device_of(cfg)
    return largest_micro_batch(
        model,
        memory_bytes=gpu.memory if gpu else memory_there(cfg),
        max_flops=_MAX_PASS_FLOPS[device],
        value_bytes=4 if cfg.trainer.precision == hardware.FP32 else 2,
        on_cpu=device == "cpu",
    )


SAME_LENGTH = 0.02  # lengths that differ by no more count as one
CUT = 0.29  # of the run: a warm-up that takes more was cut to 30 %
CARRIES = 4  # factor in length to which the best rate was seen to stay: docs/benchmarks.md


def settled_warmup(cfg: DictConfig, total: int, tokens_per_step: int) -> Tokens | None:
    """Tokens of warm-up that the config asks for; None without such an option."""
    return planned_warmup(make(cfg.scheduler), total, tokens_per_step, beta2_of(cfg.optimizer))


def beta2_of(optimizer: DictConfig) -> float | None:
    """The decay of the second moment, as our optimizers or torch's own write it; None without one."""
    beta2 = optimizer.get("beta2")
    if beta2 is None and isinstance(betas := optimizer.get("betas"), ListConfig) and len(betas) > 1:
        beta2 = betas[1]
    return float(beta2) if isinstance(beta2, int | float) and 0 <= beta2 < 1 else None


def frozen_warmup(cfg: DictConfig, run: Run) -> float | None:
    """Tokens of warm-up that the run had when it began, so that a longer limit does not change it; None without such an option."""
    began = run.info["budget"]
    if "warmup_tokens" in began:
        return None if began["warmup_tokens"] is None else float(began["warmup_tokens"])
    return warmup_tokens(make(cfg.scheduler), int(began["tokens"]))  # a run of an earlier version, whose auto knew no steps


def schedule_of(cfg: DictConfig, warmup: float | None) -> Schedule:
    """The schedule with a warm-up in tokens."""
    schedule: Any = make(cfg.scheduler)
    return schedule if warmup is None else partial(schedule, warmup=Tokens(warmup))


def planned_schedule(cfg: DictConfig, budget: Budget) -> Schedule:
    """The schedule that a run of this plan begins with."""
    return schedule_of(cfg, settled_warmup(cfg, budget.total_tokens, budget.tokens_per_step))


def planned_warmup_steps(cfg: DictConfig, budget: Budget) -> int | None:
    """Steps until the peak of a run of this plan; None for a schedule of the user's own."""
    return warmup_steps(planned_schedule(cfg, budget), budget.total_tokens, budget.tokens_per_step)


def schedule_words(cfg: DictConfig, budget: Budget, schedule: Schedule | None = None) -> str:
    """``cosine, warm-up 40 steps, 8 % of the run``; of the options, unless a schedule with another warm-up is given."""
    steps = warmup_steps(schedule or planned_schedule(cfg, budget), budget.total_tokens, budget.tokens_per_step)
    share = f", {100 * steps / budget.steps:.2g} % of the run" if steps else ""
    warmup = "" if steps is None else f", warm-up {counted(steps, 'step')}{share}" if steps else ", no warm-up"
    return str(cfg.scheduler._target_).rpartition(".")[2] + warmup


def longer_warmup(cfg: DictConfig, budget: Budget) -> str:
    """An override that doubles the warm-up, to 10 % of the run at least; nothing where it is as long.

    It is 30 % at most (50 % of one cycle), and half of what comes before the decay.
    """
    schedule = planned_schedule(cfg, budget)
    steps = warmup_steps(schedule, budget.total_tokens, budget.tokens_per_step)
    key, most = ("pct_start", 0.5) if "pct_start" in cfg.scheduler else ("warmup", LONGEST_WARMUP)
    if steps is None or key not in cfg.scheduler:
        return ""
    most = min(most, before_decay(schedule, budget.total_tokens) / 2 / budget.total_tokens)
    longer = min(max(2 * steps / budget.steps, 0.1), most)
    return f"scheduler.{key}={longer:.2g}" if longer > 1.2 * steps / budget.steps else ""


def carry_note(origin: Mapping[str, Any] | None, budget: Budget) -> str:
    """A sentence about a rate that was found for another length (docs/find-lr.md#how-far-an-answer-carries); nothing for the same."""
    tokens, warmup = (origin or {}).get("tokens"), (origin or {}).get("warmup_tokens")
    if not origin or not tokens or abs(budget.total_tokens / tokens - 1) < SAME_LENGTH:
        return ""
    longer = budget.total_tokens / tokens
    found = f"optimizer.lr was found by {origin['run']} for {short_count(tokens)} tokens, this run has {short_count(budget.total_tokens)}"
    if warmup and warmup > CUT * tokens and longer > 1:
        return f"{found}: its warm-up is longer than that one's, which was cut to 30 % of the run, and takes a higher rate"
    if 1 / CARRIES <= longer <= CARRIES:
        return f"{found}: within a factor of {CARRIES} in length it was seen to carry"
    return f"{found}: that it carries was measured to a factor of {CARRIES} in length only"


def length_notes(cfg: DictConfig, budget: Budget) -> list[str]:
    """Sentences about a warm-up that is shorter than a step or than AdamW's memory, and about an only step with a rate of 0."""
    schedule, warmup, notes = planned_schedule(cfg, budget), cfg.scheduler.get("warmup"), list[str]()
    if isinstance(warmup, int | float) and warmup > 0:
        steps = warmup_steps(schedule, budget.total_tokens, budget.tokens_per_step) or 0
        beta2 = beta2_of(cfg.optimizer)
        memory = 0 if beta2 is None else ceil(round(2 / (1 - beta2), 6))
        if 1 <= warmup < budget.tokens_per_step:
            notes.append(
                f"scheduler.warmup={warmup:g} is {counted(int(warmup), 'token')} (below 1 it is a fraction of the run), less than a step of "
                f"{budget.tokens_per_step:,}: nothing is warmed up"
            )
        elif steps < min(memory, LONGEST_WARMUP * budget.steps):
            notes.append(
                f"scheduler.warmup={warmup:g} is {counted(steps, 'step')}, and optimizer.beta2={beta2:g} averages over {memory} (2 / (1 - beta2)): "
                "a high rate may diverge; scheduler.warmup=auto is longer"
            )
    if budget.steps == 1 and schedule(budget.total_tokens, budget.total_tokens).lr == 0:
        notes.append(
            "the schedule ends at a rate of 0, which the only step of this run has: nothing is trained; scheduler=constant has no such end"
        )
    return notes
