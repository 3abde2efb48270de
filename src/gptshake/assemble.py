"""The one place where config becomes objects: cfg -> tokenizer, token store, budget, network, Lightning module, Trainer, run.

Read ``train`` from top to bottom: it is the order of the data. Below this file travel plain values only. torch is imported late,
so that a wrong path or an impossible plan is told at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from gptshake import hardware
from gptshake.data.round_trip import round_trip
from gptshake.data.store import TokenStore, open_store
from gptshake.errors import ConfigError, GptshakeError, Pruned, RecordError, Stop
from gptshake.estimate import cost
from gptshake.estimate.budget import AUTO, Budget, parse_max_time, plan
from gptshake.estimate.words import duration, short_count
from gptshake.model.config import GPTConfig
from gptshake.record.launch import Launch
from gptshake.record.lease import Lease
from gptshake.record.provenance import copy_patch, save_patch
from gptshake.record.run import Run, find_run
from gptshake.signals import SIGNALS
from gptshake.tokenizer.protocol import Tokenizer, TokenizerTrainer, load_tokenizer
from gptshake.tokenizer.saved import SavedTrainer

if TYPE_CHECKING:
    from gptshake.data.module import TokenDataModule
    from gptshake.model.gpt import GPT
    from gptshake.training.bench import Bench
    from gptshake.training.module import GPTModule

_MAX_PASS_FLOPS = {"cpu": 2.5e11, "cuda": 5e13, "mps": 5e12}  # of one micro-batch: seconds at most, so that progress moves


def make(node: DictConfig, **objects: Any) -> Any:
    """Instantiate a config node; our own errors come out as they were raised, not in Hydra's wrapping."""
    try:
        return instantiate(node, **objects)
    except InstantiationException as error:
        if isinstance(error.__cause__, GptshakeError):
            raise error.__cause__ from None
        raise


def preflight(cfg: DictConfig) -> str:
    """Make what is light and may be wrong, before anything heavy: the schedule, the tokenizer's trainer and the source.

    Returns:
        The source's label, such as ``excerpt106``.
    Raises:
        GptshakeError: what is wrong.
    """
    if cfg.scheduler is not None:
        make(cfg.scheduler)(1, 10**15)  # warm-ups in tokens are held against the real length later
    if cfg.tokenizer is not None:
        _trainer(cfg)
    return str(make(cfg.data.documents).label) if cfg.data is not None else ""


def train(cfg: DictConfig, launch: Launch) -> dict[str, float]:
    """Train, or go on training; everything ends up in the run directory.

    Returns:
        Summary: final losses, bpb, tokens.
    Raises:
        GptshakeError: what failed; the record says so too.
        Stop: a signal ended the run; its last finished step is saved.
    """
    lines: list[str] = []
    store = token_store(cfg, lines, launch.path / "tokenizer" if launch.resumes else None)
    budget = resolve(cfg, store)
    lease = Lease(launch.path)
    try:
        run = open_run(cfg, launch, store, budget)
        with _outcome(run):
            return _train(cfg, launch, store, budget, run, lease, lines)
    finally:
        lease.release()


@contextmanager
def _outcome(run: Run) -> Iterator[None]:
    """Write into the record how the run ended, if it did not end well."""
    try:
        yield
    except Stop as stop:
        run.finish("interrupted", f"signal {stop.signum}")
        run.say(f"stopped by a signal; go on with: gptshake resume={run.id}")
        raise
    except Pruned as pruned:
        run.finish("pruned", pruned.reason, run.info.get("summary"))
        run.say(f"pruned: {pruned.reason}")
        raise
    except Exception as error:
        run.finish("failed", str(error) if isinstance(error, GptshakeError) else f"{type(error).__name__}: {error}")
        raise


def token_store(cfg: DictConfig, lines: list[str], own: Path | None = None) -> TokenStore:
    """Open the token store of the data and tokenizer, building it if needed; what it says is printed and kept in ``lines``.

    ``own`` is the tokenizer of a run that goes on; it stands for what ``tokenizer.path`` named when the run began.
    """

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    data = cfg.data
    return open_store(
        make(data.documents),
        tokenizer_trainer(cfg, own),
        cache=Path(cfg.paths.cache).expanduser(),
        split=data.split,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        verify=data.get("verify", False),
        say=say,
    )


def tokenizer_trainer(cfg: DictConfig, own: Path | None = None) -> TokenizerTrainer:
    """What makes the tokenizer: the trainer of the chosen option or, with ``tokenizer.path``, what is saved there (or in ``own``).

    Raises:
        ConfigError: there is nothing, or a tokenizer of another kind than the option.
        DataError: what is there cannot be read.
    """
    trainer, wanted = _trainer(cfg), cfg.tokenizer.get("path")
    if wanted is None:
        return trainer
    path = own or Path(wanted).expanduser()
    if not path.exists():
        try:
            path = find_run(wanted, [Path(cfg.paths.runs).expanduser(), Path(cfg.paths.multirun).expanduser()])
        except RecordError as error:
            raise ConfigError(f"tokenizer.path={wanted} is no file, no folder and no run. {error}") from error
    return SavedTrainer(path, trainer.settings()["kind"])


def _trainer(cfg: DictConfig) -> TokenizerTrainer:
    options: Any = OmegaConf.to_container(cfg.tokenizer, resolve=True)
    options.pop("path", None)
    trainer: TokenizerTrainer = make(OmegaConf.create(options))
    return trainer


def resolve(cfg: DictConfig, store: TokenStore) -> Budget:
    """Decide everything that was left to ``auto`` and freeze it in ``cfg``, so that the record holds what really ran.

    Raises:
        ConfigError: a batch, a length or a device that cannot be had.
    """
    from gptshake.data.blocks import n_blocks

    trainer, shape = cfg.trainer, model_shape(cfg)
    device = hardware.pick_device(trainer.accelerator)
    precision = hardware.pick_precision(device) if trainer.precision == AUTO else trainer.precision
    epoch_tokens = n_blocks(store.train.n_tokens, shape.block_size, random_offset=_offset(cfg) == "random") * shape.block_size
    budget = plan(
        n_parameters=cost.n_parameters(shape, store.tokenizer.vocab_size),
        epoch_tokens=epoch_tokens,
        block_size=shape.block_size,
        batch_size=cfg.data.batch_size,
        batch_tokens=cfg.data.batch_tokens,
        micro_batch_size=cfg.data.micro_batch_size,
        micro_batch_wish=_micro_batch_wish(shape, store.tokenizer.vocab_size, device, precision),
        preset_tokens=OmegaConf.select(cfg, "preset.batch_tokens"),
        devices=trainer.devices,
        max_steps=trainer.max_steps,
        max_epochs=trainer.max_epochs,
        max_tokens=trainer.max_tokens,
    )
    if cfg.scheduler is not None:
        make(cfg.scheduler)(budget.tokens_per_step, budget.total_tokens)
    frozen = {
        "data.batch_size": budget.batch_size,
        "data.micro_batch_size": budget.micro_batch_size,
        "data.workers": _workers(cfg),
        "trainer.accelerator": {"cuda": "gpu"}.get(device, device),
        "trainer.precision": precision,
        "trainer.threads": hardware.default_threads() if trainer.threads == AUTO else trainer.threads,
    } | {f"data.{key}": value for key, value in make(cfg.data.documents).resolved().items()}
    for key, value in frozen.items():
        OmegaConf.update(cfg, key, value)
    cfg.trainer.val_check_interval = max(1, budget.steps // 20) if trainer.val_check_interval == AUTO else trainer.val_check_interval
    return budget


def _workers(cfg: DictConfig) -> int:
    """``auto`` is none: a batch costs less than handing it over."""
    wish = cfg.data.get("workers", AUTO)
    return 0 if wish == AUTO else int(wish)


def _offset(cfg: DictConfig) -> str:
    return str(cfg.data.get("offset", "none"))


def model_shape(cfg: DictConfig) -> GPTConfig:
    """The shape that the config asks for, vocabulary left open."""
    keys = GPTConfig.__dataclass_fields__
    return GPTConfig(**{str(key): value for key, value in cfg.model.items() if key in keys})


def open_run(cfg: DictConfig, launch: Launch, store: TokenStore, budget: Budget) -> Run:
    """Begin the record of a new run, or open that of the run to go on with.

    Raises:
        ConfigError: a longer schedule than the one that the run began with.
    """
    if launch.resumes:
        run = Run.open(launch.path)
        _refuse_another_schedule(cfg, run, budget)
        run.update(status="running", reason=None)
        return run
    run = Run.create(
        launch.path,
        id=launch.id,
        name=launch.name,
        task=str(cfg.task._target_).split(".")[-2],
        config_yaml=OmegaConf.to_yaml(cfg, resolve=True),
        overrides=launch.overrides,
        provenance=launch.provenance,
    )
    copy_patch(launch.patch, run.path) if launch.patch else save_patch(run.path)
    (run.path / "tokenizer").mkdir(exist_ok=True)
    store.tokenizer.save(run.path / "tokenizer")
    keys = (
        "data.batch_size",
        "data.micro_batch_size",
        "data.workers",
        "trainer.accelerator",
        "trainer.precision",
        "trainer.threads",
        "trainer.val_check_interval",
    )
    resolved = {key: OmegaConf.select(cfg, key) for key in keys} | {
        f"data.{key}": value for key, value in make(cfg.data.documents).resolved().items()
    }
    run.update(
        trial=launch.trial,
        choices=launch.choices,
        resolved=resolved,
        budget={
            "steps": budget.steps,
            "tokens": budget.total_tokens,
            "tokens_per_step": budget.tokens_per_step,
            "stop_rule": budget.stop_rule,
        },
        data={
            "label": store.label,
            "licence": store.licence,
            "fingerprint": store.fingerprint,
            "store": store.key,
            "tokenizer": store.tokenizer.digest,
            "vocab_size": store.tokenizer.vocab_size,
            "entropy": store.entropy,
            "bytes_per_token": store.bytes_per_token,
        },
        hardware=hardware.describe(),
    )
    return run


def _refuse_another_schedule(cfg: DictConfig, run: Run, budget: Budget) -> None:
    """The rest of the old plan must be the same under the new one: a constant rate may go on, a cosine may not be stretched."""
    old, seen = int(run.info["budget"]["tokens"]), len(run.rows()) * budget.tokens_per_step
    schedule = make(cfg.scheduler)
    rest = [seen + (old - seen) * part // 8 for part in range(1, 9)]
    if old != budget.total_tokens and any(schedule(tokens, old) != schedule(tokens, budget.total_tokens) for tokens in rest):
        raise ConfigError(
            f"{run.name} was planned for {old:,} tokens and its schedule falls towards that end; {budget.total_tokens:,} would bend it. Leave the limits "
            f"as they were, or start a new run from its weights: init_from={run.id}."
        )


def _micro_batch_wish(shape: GPTConfig, vocab_size: int, device: str, precision: str) -> int:
    memory = hardware.device_memory(device)
    value_bytes = 4 if precision == hardware.FP32 else 2
    return cost.micro_batch_wish(shape, vocab_size, memory_bytes=memory, max_flops=_MAX_PASS_FLOPS[device], value_bytes=value_bytes)


def _train(
    cfg: DictConfig, launch: Launch, store: TokenStore, budget: Budget, run: Run, lease: Lease, lines: list[str]
) -> dict[str, float]:
    """The heavy half: torch from here on."""
    import torch

    from gptshake.training.rewind import rewind

    torch.set_num_threads(cfg.trainer.threads)
    torch.use_deterministic_algorithms(cfg.deterministic, warn_only=True)
    for line in lines:
        run.log(line)
    device = {"gpu": "cuda"}.get(cfg.trainer.accelerator, cfg.trainer.accelerator)
    torch.manual_seed(cfg.seed)
    model = make(cfg.model, vocab_size=store.tokenizer.vocab_size)
    data = _data_module(cfg, store, budget)
    flops = cost.flops_per_token(model.config, store.tokenizer.vocab_size)
    gemm = hardware.measured_gemm_flops(device, cfg.trainer.precision)
    peak = hardware.peak_flops(device, cfg.trainer.precision)
    _say_plan(
        cfg,
        run,
        store,
        budget,
        sum(parameter.numel() for parameter in model.parameters()),
        cost.train_seconds(budget.total_tokens, flops, gemm),
    )
    start = rewind(run) if launch.resumes else None
    _show_data(run, store, data, begins=start is None)
    if cfg.init_from and start is None:
        _load_initial_weights(cfg, model, store, run)
    bench = _bench(cfg, run, store, data, model, flops, peak, launch)
    return _fit(cfg, start, store, data, bench, lease, _module(cfg, model, budget, bench))


def _data_module(cfg: DictConfig, store: TokenStore, budget: Budget) -> TokenDataModule:
    module: TokenDataModule = _builder(cfg.data)(
        store=store,
        block_size=cfg.model.block_size,
        batch_size=budget.batch_size,
        micro_batch_size=budget.micro_batch_size,
        seed=cfg.seed,
        offset=_offset(cfg),
        workers=_workers(cfg),
    )
    return module


def _builder(node: DictConfig) -> Any:
    """The node's target alone, to be called with objects (Hydra would turn dataclasses among them into config)."""
    return instantiate({"_target_": node._target_, "_partial_": True})


def _say_plan(cfg: DictConfig, run: Run, store: TokenStore, budget: Budget, n_parameters: int, seconds: float) -> None:
    for note in budget.notes:
        run.say(f"note: {note}")
    vocabulary = store.tokenizer.vocab_size
    accumulation = f" = {budget.accumulation} x {budget.micro_batch_size}" if budget.accumulation > 1 else ""
    run.say(
        f"plan: {short_count(n_parameters)} parameters | {store.label}, {short_count(store.train.n_tokens)} train tokens, vocabulary {vocabulary}"
        f" | {budget.steps:,} steps x {budget.batch_size}{accumulation} sequences of {budget.block_size} = {short_count(budget.total_tokens)} tokens,"
        f" {budget.epochs:.2g} epochs ({budget.stop_rule}) | peak lr {OmegaConf.select(cfg, 'optimizer.lr') or 0:.3g}"
        f" | {cfg.trainer.accelerator}, {cfg.trainer.precision}, {cfg.trainer.threads} threads | roughly {duration(seconds)} of training"
    )
    if cfg.trainer.max_time and parse_max_time(cfg.trainer.max_time) < seconds:
        run.say(f"note: trainer.max_time={cfg.trainer.max_time} will probably end this run before its schedule does")


def _show_data(run: Run, store: TokenStore, data: TokenDataModule, *, begins: bool) -> None:
    """Show what the model will read, and what the tokenizer makes of three documents, so that garbage is seen at once.

    Raises:
        DataError: the tokenizer does not give back a text that it was given.
    """
    block = store.tokenizer.decode(data.sample_block().tolist())[:120]
    run.say(f"run: {run.path}")
    run.say(f"first block, {store.bytes_per_token:.3g} bytes per token: {block!r}")
    verdict = round_trip(store)
    run.say(verdict)
    if begins:
        run.sample(0, 0, f"{block}\n\n{store.bytes_per_token:.3g} bytes per token; {verdict}", title="first training block")


def _load_initial_weights(cfg: DictConfig, model: Any, store: TokenStore, run: Run) -> None:
    from gptshake.training.checkpoint import best_weights, load_weights

    source = find_run(cfg.init_from, [Path(cfg.paths.runs).expanduser(), Path(cfg.paths.multirun).expanduser()])
    parent = Run.open(source)
    if parent.info["data"]["tokenizer"] != store.tokenizer.digest:
        raise ConfigError(f"init_from={parent.name} was trained with another tokenizer; its weights would be read as other characters.")
    path, _ = best_weights(source)
    try:
        model.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise ConfigError(f"init_from={parent.name} has another shape: {str(error).splitlines()[-1].strip()}") from error
    run.update(parent=parent.id)
    run.say(f"weights from {parent.name}")


def _bench(
    cfg: DictConfig, run: Run, store: TokenStore, data: TokenDataModule, model: Any, flops: float, peak: float, launch: Launch
) -> Bench:
    from itertools import islice

    from gptshake.report.curves import plot_run
    from gptshake.training.bench import Bench
    from gptshake.training.evaluation import Evaluation, evaluate

    def between() -> None:
        if SIGNALS.received is not None:
            raise Stop(SIGNALS.received)  # the checkpoint before the validation stays the last one

    def validate() -> Evaluation:
        batches = data.val_dataloader()
        return evaluate(
            model, islice(batches, cfg.trainer.limit_val_batches), store.val.n_bytes / (store.val.n_tokens - 1), between=between
        )

    sinks = [make(cfg.logger)] if cfg.logger else []
    for sink in sinks:
        sink.start(
            run,
            OmegaConf.to_container(cfg, resolve=True),
            [store.label, *(f"{g}:{n}" for g, n in launch.choices.items() if g in ("model", "data", "debug"))],
        )
    return Bench(run, store.tokenizer, store.entropy, validate, plot_run, sinks, flops, peak)


def _module(cfg: DictConfig, model: Any, budget: Budget, bench: Bench) -> GPTModule:
    from gptshake.training.module import GPTModule

    return GPTModule(
        model,
        make(cfg.optimizer),
        make(cfg.scheduler),
        budget,
        bench,
        seed=cfg.seed,
        clip=cfg.trainer.gradient_clip_val,
        compile=cfg.trainer.compile,
    )


OURS = (
    "max_steps",
    "max_epochs",
    "max_tokens",
    "max_time",
    "val_check_interval",
    "limit_val_batches",
    "gradient_clip_val",
    "patience",
    "save_minutes",
    "threads",
    "compile",
)


def _fit(
    cfg: DictConfig, start: Path | None, store: TokenStore, data: TokenDataModule, bench: Bench, lease: Lease, module: GPTModule
) -> dict[str, float]:
    from gptshake.training import checkpoint
    from gptshake.training.callbacks.keeper import Keeper
    from gptshake.training.callbacks.recorder import Recorder

    options = cfg.trainer
    recorder = Recorder(options.val_check_interval, parse_max_time(options.max_time) if options.max_time else None)
    saved_step = checkpoint.our_state(start)["steps"] if start else None
    bench.row = bench.run.rows()[-1] if start else {}
    keeper = Keeper(recorder, lease, save_minutes=options.save_minutes, patience=options.patience, saved_step=saved_step)
    # A node without a target is an option of a callback that is not there, as debug=smoke gives them to callbacks=none.
    chosen = [make(node) for node in (cfg.callbacks or {}).values() if node and "_target_" in node]
    lightning = {str(key): value for key, value in options.items() if key not in OURS and key != "_target_"}
    trainer = _builder(options)(budget=module.budget, callbacks=[recorder, *chosen, keeper], **lightning)
    try:
        with SIGNALS.deferred():
            trainer.fit(module, train_dataloaders=data.train_dataloader(), ckpt_path=start, weights_only=True)
            keeper.save(trainer, module)
    except Pruned:
        bench.run.update(summary=_summary(module, bench))
        for sink in bench.sinks:
            sink.finish("pruned", bench.run.info["summary"])
        raise
    return _conclude(cfg, store if bench.run.info.get("trial") is None else None, data, bench, module)


def _conclude(cfg: DictConfig, store: TokenStore | None, data: TokenDataModule, bench: Bench, module: GPTModule) -> dict[str, float]:
    """Test on the best weights, once, and tell how it ended; a trial of a sweep is not tested, or the winner would be chosen by the test."""
    from gptshake.training import checkpoint
    from gptshake.training.evaluation import evaluate

    run, summary = bench.run, _summary(module, bench)
    if store is not None and store.test is not None and cfg.trainer.limit_val_batches is None:
        weights, _ = checkpoint.best_weights(run.path)
        module.model.load_state_dict(checkpoint.load_weights(weights, module.device))
        result = evaluate(module.model, data.test_dataloader(), store.test.n_bytes / (store.test.n_tokens - 1))
        summary |= {"test/loss": result.loss, "test/bpb": result.bpb}
    run.finish("ok", None, summary)
    for sink in bench.sinks:
        sink.finish("ok", summary)
    _say_end(run, summary)
    return summary


def _summary(module: GPTModule, bench: Bench) -> dict[str, float]:
    """The figures of the last finished step."""
    row = bench.row
    summary: dict[str, float] = {
        "train/tokens": module.tokens,
        "steps": module.steps,
        "best/val/loss": bench.best_loss,
        "best/step": bench.best_step or 0,
    }
    return summary | {key: row[key] for key in ("train/loss", "val/loss", "val/bpb") if key in row}


def _say_end(run: Run, summary: dict[str, float]) -> None:
    parts = [f"val loss {summary['val/loss']:.4f} nats per token, {summary['val/bpb']:.4f} bits per byte" if "val/loss" in summary else ""]
    parts += [f"test {summary['test/bpb']:.4f} bpb" if "test/bpb" in summary else "", f"after {summary['train/tokens']:,.0f} tokens"]
    run.say(f"done: {' | '.join(part for part in parts if part)}")
    for name, path in (("record", run.path), ("curves", run.path / "plots" / "loss.png"), ("samples", run.path / "samples.md")):
        if Path(path).exists():
            run.say(f"  {name + ':':<9}{os.path.relpath(path)}")
    run.say(f"  next:    gptshake task=sample task.run={run.id} task.prompt='The '")


def trained(cfg: DictConfig) -> tuple[GPT, Tokenizer]:
    """The network with the best weights of the run ``task.run``, and its tokenizer; only values are taken from the record.

    Raises:
        ConfigError: no run was named.
        RecordError: there is no such run, or it has no checkpoint.
    """
    if not cfg.task.run:
        raise ConfigError("Say which run: task.run=<name, id or path>.")
    path = find_run(cfg.task.run, [Path(cfg.paths.runs).expanduser(), Path(cfg.paths.multirun).expanduser()])
    from gptshake.model.gpt import GPT
    from gptshake.training.checkpoint import best_weights, load_weights

    stored = OmegaConf.load(path / "config.yaml")
    tokenizer = load_tokenizer(path / "tokenizer")
    shape = {key: stored.model[key] for key in GPTConfig.__dataclass_fields__ if not key.startswith("_") and key != "vocab_size"}
    model = GPT(**shape, vocab_size=tokenizer.vocab_size)
    model.load_state_dict(load_weights(best_weights(path)[0]))
    return model, tokenizer
