"""cfg -> token store, budget, record, network, Lightning module, Trainer, training. Read ``train`` from top to bottom: it is the order of the data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from gptshake import energy, hardware
from gptshake.assemble.forecast import device_of
from gptshake.assemble.opening import open_run, outcome, say_end, say_plan, show_data
from gptshake.assemble.parts import builder, make
from gptshake.assemble.settle import offset_rule, resolve, token_store, workers
from gptshake.assemble.weights import load_initial_weights
from gptshake.data.store import TokenStore
from gptshake.errors import Stop
from gptshake.estimate import cost
from gptshake.estimate.budget import Budget, parse_max_time
from gptshake.record.launch import Launch
from gptshake.record.lease import Lease
from gptshake.record.run import Run
from gptshake.record.sinks.protocol import Sink
from gptshake.signals import SIGNALS

if TYPE_CHECKING:
    from gptshake.data.module import TokenDataModule
    from gptshake.training.bench import Bench
    from gptshake.training.callbacks.profiler import Profiler
    from gptshake.training.module import GPTModule


OURS = (
    "max_steps",
    "max_epochs",
    "max_tokens",
    "hours",
    "max_time",
    "val_check_interval",
    "limit_val_batches",
    "gradient_clip_val",
    "patience",
    "save_minutes",
    "price_per_hour",
    "threads",
    "compile",
)


def train(cfg: DictConfig, launch: Launch, profiler: Profiler | None = None) -> dict[str, float]:
    """Train, or go on training; everything ends up in the run directory.

    Args:
        cfg: the composed config; what was left to ``auto`` is resolved in it.
        launch: the run as it was asked for.
        profiler: measures the training, and ends it early.
    Returns:
        Summary: final losses, bpb, tokens.
    Raises:
        GptshakeError: what failed; the record says so too.
        Stop: a signal ended the run; its last finished step is saved.
    """
    lines: list[str] = []
    store = token_store(cfg, lines, launch.path / "tokenizer" if launch.resumes else None)
    budget = resolve(cfg, store)
    sinks: list[Sink] = [make(cfg.logger)] if cfg.logger else []
    lease = Lease(launch.path)
    try:
        run = open_run(cfg, launch, store, budget)
        with outcome(run):
            return _train(cfg, launch, store, budget, run, lease, lines, sinks, profiler)
    finally:
        for sink in sinks:
            sink.finish()
        lease.release()


def _train(
    cfg: DictConfig,
    launch: Launch,
    store: TokenStore,
    budget: Budget,
    run: Run,
    lease: Lease,
    lines: list[str],
    sinks: list[Sink],
    profiler: Profiler | None,
) -> dict[str, float]:
    """The heavy half: torch from here on."""
    import torch

    from gptshake.training.rewind import rewind

    torch.set_num_threads(cfg.trainer.threads)
    torch.use_deterministic_algorithms(cfg.deterministic, warn_only=True)
    for line in lines:
        run.log(line)
    device = device_of(cfg)
    if device != "cpu" or launch.trial is None:  # trials share the processors: whose energy it is cannot be said
        run.meter = energy.Meter(energy.counters_of(device))
    base = hardware.CUDA_CONTEXT if device == "cuda" else hardware.resident_bytes()
    torch.manual_seed(cfg.seed)
    model = make(cfg.model, vocab_size=store.tokenizer.vocab_size)
    data = data_module(cfg, store, budget)
    flops = cost.flops_per_token(model.config, store.tokenizer.vocab_size)
    gemm = hardware.measured_gemm_flops(device, cfg.trainer.precision)
    peak = hardware.peak_flops(device, cfg.trainer.precision)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    run.update(model={"parameters": n_parameters, "flops_per_token": flops})
    say_plan(cfg, run, store, budget, base, gemm)
    start = rewind(run) if launch.resumes else None
    show_data(run, store, data, begins=start is None)
    if cfg.init_from and start is None:
        load_initial_weights(cfg, model, store, run)
    for sink in sinks:
        sink.start(run)
    bench = _bench(cfg, run, store, data, model, sinks, flops, peak)
    return _fit(cfg, start, store, data, bench, lease, _module(cfg, model, budget, bench), profiler)


def data_module(cfg: DictConfig, store: TokenStore, budget: Budget) -> TokenDataModule:
    """Batches of the run's seed and budget."""
    module: TokenDataModule = builder(cfg.data)(
        store=store,
        block_size=cfg.model.block_size,
        batch_size=budget.batch_size,
        micro_batch_size=budget.micro_batch_size,
        seed=cfg.seed,
        offset=offset_rule(cfg),
        limit_blocks=cfg.data.get("limit_blocks"),
        workers=workers(cfg),
    )
    return module


def _bench(
    cfg: DictConfig, run: Run, store: TokenStore, data: TokenDataModule, model: Any, sinks: list[Sink], flops: float, peak: float
) -> Bench:
    from itertools import islice

    from gptshake.report.curves import plot_run
    from gptshake.report.noise_scale import plot_noise_scale
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

    def draw(path: Path) -> list[Path]:
        return [*plot_run(path), *plot_noise_scale(path)]

    return Bench(run, store.tokenizer, store.entropy, validate, draw, sinks, flops, peak)


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


def _fit(
    cfg: DictConfig,
    start: Path | None,
    store: TokenStore,
    data: TokenDataModule,
    bench: Bench,
    lease: Lease,
    module: GPTModule,
    profiler: Profiler | None,
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
    callbacks = [recorder, *chosen, keeper, *([profiler] if profiler else [])]
    trainer = builder(options)(budget=module.budget, callbacks=callbacks, **lightning)
    batches = profiler.timed(data.train_dataloader()) if profiler else data.train_dataloader()
    try:
        with SIGNALS.deferred():
            trainer.fit(module, train_dataloaders=batches, ckpt_path=start, weights_only=True)
            keeper.save(trainer, module)
    except BaseException:
        bench.run.update(summary=summary_of(module, bench))
        raise
    return _conclude(cfg, store if bench.run.info.get("trial") is None else None, data, bench, module)


def _conclude(cfg: DictConfig, store: TokenStore | None, data: TokenDataModule, bench: Bench, module: GPTModule) -> dict[str, float]:
    """Test on the best weights, once, and tell how it ended; a trial of a sweep is not tested, or the winner would be chosen by the test."""
    from gptshake.training import checkpoint
    from gptshake.training.evaluation import evaluate

    run, summary = bench.run, summary_of(module, bench)
    if store is not None and store.test is not None and cfg.trainer.limit_val_batches is None:
        weights, _ = checkpoint.best_weights(run.path)
        module.model.load_state_dict(checkpoint.load_weights(weights, module.device))
        result = evaluate(module.model, data.test_dataloader(), store.test.n_bytes / (store.test.n_tokens - 1))
        summary |= {"test/loss": result.loss, "test/bpb": result.bpb}
    run.finish("ok", None, summary)
    say_end(run, summary)
    return summary


def summary_of(module: GPTModule, bench: Bench) -> dict[str, float]:
    """The figures of the last finished step, of the best validation, and the speed of the whole run without its validations."""
    row, rows = bench.row, bench.run.rows()
    summary: dict[str, float] = {
        "train/tokens": module.tokens,
        "steps": module.steps,
        "best/val/loss": bench.best_loss,
        "best/step": bench.best_step or 0,
    }
    summary |= {key: row[key] for key in ("train/loss", "val/loss", "val/bpb") if key in row}
    if best := [row["val/bpb"] for row in rows if row["step"] == bench.best_step and "val/bpb" in row]:
        summary["best/val/bpb"] = best[0]
    if seconds := sum(row["perf/step_ms"] for row in rows) / 1e3:
        rate = rows[-1]["train/tokens"] / seconds
        summary |= {"perf/tokens_per_s": rate, "perf/mfu": rate * bench.flops_per_token / bench.peak_flops}
    return summary
