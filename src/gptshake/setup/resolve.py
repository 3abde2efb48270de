"""cfg -> token store and plan, before torch is imported: source, tokenizer, shape, batch, length, device.

So a wrong path or an impossible plan is reported at once. ``resolve`` writes into the config what every ``auto`` means.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptshake import hardware, torchrun
from gptshake.console import printable
from gptshake.data.blocks import n_blocks
from gptshake.data.corpus import Say
from gptshake.data.split import SplitRule
from gptshake.data.store import TokenStore, open_store
from gptshake.errors import ConfigError, DiskFull, RecordError
from gptshake.estimate.budget import Budget, Request, plan
from gptshake.estimate.forecast import Speed, interval_of, run_seconds, steps_within
from gptshake.estimate.formatting import duration
from gptshake.estimate.memory import largest_micro_batch
from gptshake.export.hub import pinned
from gptshake.files import expanded
from gptshake.keys import AUTO
from gptshake.model.config import Costs
from gptshake.record.run import find_run, run_roots
from gptshake.redaction import redact
from gptshake.setup import batch_finder, costs
from gptshake.setup.initial import check_initial_shape, initial_run
from gptshake.setup.instantiate import check_call, device_of, source_of, trainer_of
from gptshake.setup.schedule import check_schedule, planned_schedule
from gptshake.tokenizer.cache import SavedTrainer
from gptshake.tokenizer.protocol import TokenizerTrainer

Measure = Callable[[TokenStore, DictConfig, Budget], Speed]
MAX_PASS_FLOPS = {"cpu": 2.5e11, "cuda": 5e13, "mps": 5e12}  # of one micro-batch: seconds at most, so that progress moves


def preflight(cfg: DictConfig) -> str:
    """Make what is light and may be wrong, before anything heavy; gives the source's label, such as ``excerpt106``."""
    if cfg.scheduler is not None:
        check_schedule(cfg)
    if cfg.tokenizer is not None:
        trainer_of(cfg)
    if cfg.init_from and not cfg.resume:  # a resumed run has its weights
        check_initial_shape(cfg)
    return str(source_of(cfg.data).label) if cfg.data is not None else ""


def token_store(cfg: DictConfig, lines: list[str], saved: Path | None = None) -> TokenStore:
    """Open the token store of the data and tokenizer, building it if needed; its messages are printed and kept in ``lines``.

    ``saved`` is the tokenizer of a run that is resumed; it stands for what ``tokenizer.path`` named when the run began.
    """

    def say(line: str) -> None:
        print(printable(redact(line)), flush=True)
        lines.append(line)

    data = cfg.data
    store = open_store(
        source_of(data),
        tokenizer_trainer(cfg, saved),
        SplitRule(data.split, data.val_fraction, data.test_fraction),
        cache=expanded(cfg.paths.cache),
        verify=data.get("verify", False),
        say=say,
    )
    try:
        return copy_to_node(cfg, store, say)
    except DiskFull as error:  # of one node, on which each run of a sweep would fail
        if cfg.trainer.get("strategy") is not None:  # other ranks read the copy, too
            raise
        say(f"{error} Tokens are read from {store.path}.")
        return store


def store_folder(cfg: DictConfig, key: str, *, shared: bool = False) -> Path:
    """Where this node reads a token store, or where all nodes find it, which is the same without ``paths.node_cache``."""
    return expanded(cfg.paths.cache if shared else cfg.paths.get("node_cache") or cfg.paths.cache) / "stores" / key


def copy_to_node(cfg: DictConfig, store: TokenStore, say: Say = lambda line: None) -> TokenStore:
    """The store as this node reads it: a copy on its own disk, if ``paths.node_cache`` names a folder there."""
    folder = store_folder(cfg, store.key)
    if not cfg.paths.get("node_cache") or folder == store.path:
        return store
    copied = store.copied(folder, verify=cfg.data.get("verify", False), say=say)
    say(f"tokens are read from this node's copy: {folder}")
    return copied


def tokenizer_trainer(cfg: DictConfig, saved: Path | None = None) -> TokenizerTrainer:
    """What makes the tokenizer: the trainer of the chosen option or, with ``tokenizer.path``, what is saved there (or in ``saved``)."""
    trainer = trainer_of(cfg)
    return trainer if cfg.tokenizer.get("path") is None else SavedTrainer(saved or _saved_tokenizer(cfg), trainer)


def _saved_tokenizer(cfg: DictConfig) -> Path:
    wanted = cfg.tokenizer.path
    path = expanded(wanted)
    if path.exists():
        return path
    try:
        return find_run(wanted, run_roots(cfg.paths))
    except RecordError as error:
        raise ConfigError(f"tokenizer.path={wanted} is not a file, a folder or a run. {error}") from error


def resolved_initial_paths(cfg: DictConfig) -> dict[str, str]:
    """The tokenizer and the weights that a run starts from, as absolute paths (a model of the hub with its commit): dotted key -> value."""
    found = {}
    if cfg.tokenizer.get("path") is not None:
        found["tokenizer.path"] = str(_saved_tokenizer(cfg).absolute())
    if cfg.init_from:
        found["init_from"] = str(initial_run(cfg) or pinned(cfg.init_from))
    return found


def resolved_source(cfg: DictConfig) -> dict[str, Any]:
    """What the source resolved (hub or excerpt, revision, absolute path): dotted key -> value, for the keys that ``data`` has."""
    return {f"data.{key}": value for key, value in source_of(cfg.data).resolved().items() if key in cfg.data}


def resolve(
    cfg: DictConfig, store: TokenStore, measure: Measure = costs.speed_in_child, gpu: hardware.Gpu | None = None, *, tries: bool = True
) -> Budget:
    """Decide everything that was left to ``auto`` and write it into ``cfg``, so that the record holds what really ran.

    Args:
        cfg: changed in place.
        measure: measures the speed, for ``trainer.hours``.
        gpu: a device that is not here, to be planned for.
        tries: whether an automatic micro-batch may be measured.
    """
    trainer, data, model = cfg.trainer, cfg.data, costs.model_costs(cfg, store.tokenizer.vocab_size)
    _resolve_device(cfg, gpu)
    device = device_of(cfg)
    blocks = n_blocks(store.train.n_tokens, model.block_size, random_offset=data.get("offset") == "random", limit=data.get("limit_blocks"))
    most = largest_micro_batch(
        model,
        memory_bytes=gpu.memory if gpu else costs.available_memory(cfg),
        max_flops=MAX_PASS_FLOPS[device],
        value_bytes=4 if trainer.precision == hardware.FP32 else 2,
        on_cpu=device == "cpu",
        shards=costs.shards(cfg),
    )
    request = Request(
        n_parameters=model.num_params(),
        epoch_tokens=blocks * model.block_size,
        block_size=model.block_size,
        batch_size=data.batch_size,
        batch_tokens=data.batch_tokens,
        micro_batch_size=data.micro_batch_size,
        max_micro_batch=most,
        preset_tokens=OmegaConf.select(cfg, "preset.batch_tokens"),
        devices=trainer.devices,
        max_steps=trainer.max_steps,
        max_epochs=trainer.max_epochs,
        max_tokens=trainer.max_tokens,
    )
    budget, notes = plan(request), list[str]()
    # What it tries has the whole network, so of one that is sharded the formula decides.
    if data.micro_batch_size == AUTO and tries and gpu is None and device in batch_finder.AUTO_DEVICES and costs.shards(cfg) == 1:
        size, note = batch_finder.automatic(cfg, store, budget)
        request, notes = replace(request, max_micro_batch=size), [note]
        budget = plan(request)
    if trainer.hours is not None:
        budget = _within_hours(cfg, store, model, request, budget, measure)
    if cfg.scheduler is not None:
        if cfg.scheduler.get("_partial_"):
            check_call(cfg.scheduler, first=("tokens", "total"))
        planned_schedule(cfg, budget)(budget.tokens_per_step, budget.total_tokens)
    data.batch_size, data.micro_batch_size = budget.batch_size, budget.micro_batch_size
    if data.get("workers") == AUTO:
        data.workers = 0  # a batch costs less than handing it over
    for key, value in resolved_source(cfg).items():
        OmegaConf.update(cfg, key, value)
    if trainer.val_check_interval == AUTO:
        trainer.val_check_interval = interval_of(budget.steps)
    return replace(budget, notes=(*budget.notes, *notes))


def _resolve_device(cfg: DictConfig, gpu: hardware.Gpu | None) -> None:
    trainer = cfg.trainer
    device = "cuda" if gpu else hardware.pick_device(trainer.accelerator)
    if trainer.precision == AUTO:
        if gpu:
            trainer.precision = hardware.FP16 if gpu.name in hardware.WITHOUT_BF16 else hardware.BF16
        else:
            trainer.precision = hardware.pick_precision(device)
        if trainer.precision == hardware.FP16 and trainer.get("strategy") == "fsdp":
            trainer.precision = hardware.FP32
    hardware.check_precision(device, trainer.precision)
    trainer.devices = _devices(cfg, device, here=gpu is None)
    if trainer.threads == AUTO:
        trainer.threads = max(1, hardware.physical_cores() // (trainer.devices // torchrun.nodes()))
    trainer.accelerator = {"cuda": "gpu"}.get(device, device)


def _devices(cfg: DictConfig, device: str, *, here: bool) -> int:
    wanted, strategy = cfg.trainer.devices, cfg.trainer.get("strategy")
    launched, available = torchrun.launched(), hardware.device_count(device)
    if strategy is None and wanted not in (1, AUTO):
        raise ConfigError(f"trainer.devices={wanted} needs a strategy: add trainer=ddp or trainer=fsdp.")
    if strategy is None:
        return 1
    if wanted == AUTO and launched == 1 and device == "cpu":
        raise ConfigError("On a CPU give the number of processes, as in trainer.devices=2.")
    count = int(wanted) if wanted != AUTO else launched if launched > 1 else available
    if launched not in (1, count):
        raise ConfigError(f"trainer.devices={count}, but torchrun or srun started {launched} processes: leave trainer.devices out.")
    if here and count // torchrun.nodes() > available:
        what = "processors that this process may use" if device == "cpu" else "GPUs here" if device == "cuda" else "GPU of Apple's"
        several = " per node" if torchrun.nodes() > 1 else ""
        hint = (
            "; each process must see all of them (srun --gpus-per-node, not --gpus-per-task)" if launched > 1 and device == "cuda" else ""
        )
        raise ConfigError(f"trainer.devices={count}{several} is more than the {available} {what}{hint}.")
    if strategy == "fsdp" and count > 1 and (cfg.trainer.compile or cfg.trainer.precision == hardware.FP16):
        key = "compile=true" if cfg.trainer.compile else "precision=16-mixed"
        raise ConfigError(f"trainer.{key} does not work with trainer=fsdp: leave it out, or use trainer=ddp.")
    return count


def _within_hours(cfg: DictConfig, store: TokenStore, model: Costs, request: Request, guess: Budget, measure: Measure) -> Budget:
    """The budget of ``trainer.hours``, kept as steps; an automatic batch depends on the length, so it is decided in between."""
    trainer, hours = cfg.trainer, cfg.trainer.hours
    speed = measure(store, cfg, guess)
    limit = steps_within(3600 * hours, guess.accumulation, speed, costs.overhead(cfg, store, model, guess)) * guess.tokens_per_step
    budget = plan(replace(request, max_steps=None, max_tokens=max(1, min(limit, trainer.max_tokens or limit))))
    if budget.micro_batch_size != guess.micro_batch_size:
        speed = measure(store, cfg, budget)
    overhead = costs.overhead(cfg, store, model, budget)
    steps = steps_within(3600 * hours, budget.accumulation, speed, overhead)
    one = run_seconds(1, budget.accumulation, speed, overhead)
    if steps < 1:
        raise ConfigError(f"trainer.hours={hours:g} is too short: one step, start and validation take {duration(sum(one.values()))} here.")
    typed = trainer.max_steps is not None and trainer.max_steps <= steps
    limit = trainer.max_steps if typed else steps
    budget = plan(replace(request, batch_size=budget.batch_size, batch_tokens=None, max_steps=limit))
    note = f"trainer.hours={hours:g}: a step takes {one['steps']:.3g} s here; {budget.steps:,} steps are kept in the record as trainer.max_steps"
    trainer.max_steps, trainer.hours = budget.steps, None
    rule = f"{hours:g} hours" if budget.stop_rule == "max_steps" and not typed else budget.stop_rule
    return replace(budget, stop_rule=rule, measured=True, notes=(*budget.notes, note))
