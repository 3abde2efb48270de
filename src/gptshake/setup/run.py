"""cfg -> token store, budget, record, network, Lightning module, Trainer, training. Read ``train`` from top to bottom: it is the order of the data.

``follow`` is the same for the ranks beside rank 0, without a record: they receive config, plan and checkpoint from it, and decide nothing.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from gptshake import distributed, energy, hardware
from gptshake.context import Context, Launch
from gptshake.data.store import TokenStore
from gptshake.distributed import together
from gptshake.errors import Pruned, Stop, TrainingError
from gptshake.estimate.budget import Budget, parse_max_time
from gptshake.record.lock import NullLock, RunLock
from gptshake.record.metrics import COLUMNS, Row, column_chunks
from gptshake.record.run import NullRun
from gptshake.record.trackers.lightning import as_tracker
from gptshake.record.trackers.protocol import Tracker
from gptshake.setup.costs import check_run_capacity, model_costs
from gptshake.setup.instantiate import builder, data_module, device_of, load_initial_weights, make, network, set_torch, training_step
from gptshake.setup.lifecycle import hidden_nats, open_run, outcome, rate_at, say_end, say_plan, show_data
from gptshake.setup.schedule import recorded_warmup, schedule_of
from gptshake.signals import SIGNALS

if TYPE_CHECKING:
    from gptshake.data.module import TokenDataModule
    from gptshake.training.callbacks.profiler import Profiler
    from gptshake.training.module import GPTModule


OURS = (
    "max_steps",
    "max_epochs",
    "max_tokens",
    "hours",
    "max_time",
    "extend",
    "val_check_interval",
    "limit_val_batches",
    "gradient_clip_val",
    "patience",
    "save_minutes",
    "price_per_hour",
    "threads",
    "compile",
)


@dataclass(frozen=True)
class _Order:
    """What rank 0 tells the others: everything that is settled."""

    cfg: DictConfig
    store: TokenStore
    budget: Budget
    launch: Launch
    start: Path | None  # checkpoint to go on from
    row: Row  # the last one of metrics.csv
    warmup: float | None  # tokens, as frozen when the run began
    tests: bool  # at the end; not a trial of a sweep, or the winner would be chosen by the test


def train(context: Context, profiler: Profiler | None = None) -> dict[str, float]:
    """Train, or resume a training; everything ends up in the run directory.

    Args:
        context: of the run.
        profiler: measures the training, and ends it early.
    Returns:
        Summary: final losses, bpb, tokens.
    Raises:
        GptshakeError: what failed; the record says so too.
        Stop: a signal ended the run; its last finished step is saved.
    """
    cfg, launch, store, budget = context.config, context.launch, context.store, context.plan
    check_run_capacity(cfg, store, budget, launch.path)
    trackers: list[Tracker] = [as_tracker(make(cfg.logger))] if cfg.logger else []  # what it refuses leaves no directory behind
    with ExitStack() as ends:
        lease = RunLock(launch.path)
        ends.callback(lease.release)
        for tracker in reversed(trackers):
            ends.callback(tracker.finish)
        run = open_run(context)
        ends.enter_context(outcome(run))
        device, devices = context.device, cfg.trainer.devices
        with together(devices, cfg.trainer.threads, device, lambda: SIGNALS.received) as group:  # torch from here on
            from gptshake.training.checkpoint import resume_from

            set_torch(cfg)
            for line in context.lines:
                run.log(line)
            if device != "cpu" or launch.trial is None:  # trials share the processors: whose energy it is cannot be said
                run.meter = energy.Meter(energy.counters_of(device, devices))
            base = hardware.CUDA_CONTEXT if device == "cuda" else hardware.resident_bytes()
            model = network(cfg, store)
            data = data_module(cfg, store, budget, group)
            flops = model_costs(cfg, store.tokenizer.vocab_size).flops_per_token()
            gemm = hardware.measured_gemm_flops(device, cfg.trainer.precision)
            peak = devices * hardware.peak_flops(device, cfg.trainer.precision)
            n_parameters = sum(parameter.numel() for parameter in model.parameters())
            run.update(model={"parameters": n_parameters, "flops_per_token": flops})
            say_plan(cfg, run, store, budget, base, gemm)
            start = resume_from(run) if launch.resumes else None
            show_data(run, store, data, begins=start is None)
            if cfg.init_from and start is None:
                parent = load_initial_weights(cfg, model, store)
                run.update(parent=parent.id)
                run.say(f"weights from {parent.name}")
            for tracker in trackers:
                tracker.start(run)
            order = _Order(
                cfg, store, budget, launch, start, run.last_row(), recorded_warmup(cfg, run), tests=run.info.get("trial") is None
            )
            group.broadcast(order)
            context.run, context.ranks, context.row = run, group, order.row
            context.trackers, context.flops_per_token, context.peak_flops, context.draw = trackers, flops, peak, draw
            module = _module(order, context, data, model)
            expected = rate_at(cfg, store, budget, gemm) if device == "cpu" and cfg.trainer.threads > 1 else None
            _fit(order, data, lease, module, profiler, expected)
            summary = summary_of(module) | _test(order, data, module)
        run.finish("ok", None, summary)
        limit = cfg.trainer.limit_val_batches
        say_end(run, summary, budget.steps, store if order.tests else None, limit and limit * budget.micro_batch_size * budget.block_size)
    return summary


def follow() -> None:
    """Train along with rank 0, which says what, and writes.

    Raises:
        Stop: a signal ended the run; rank 0 has saved it.
        TrainingError: another rank ended early.
    """
    group = distributed.join()
    order: _Order = group.broadcast()
    SIGNALS.install()  # until now a signal ended this process at once
    cfg, store, budget = order.cfg, order.store, order.budget
    set_torch(cfg)
    model = network(cfg, store)
    data = data_module(cfg, store, budget, group)
    if cfg.init_from and order.start is None:
        load_initial_weights(cfg, model, store)
    context = Context(cfg, order.launch, lambda _: store, lambda _: budget, ranks=group, row=order.row)
    context.run = NullRun(order.launch.path)
    module = _module(order, context, data, model)
    try:
        _fit(order, data, NullLock(), module)
        _test(order, data, module)
    except (Pruned, TrainingError):
        return  # all ranks have come to it, and rank 0 says so
    except RuntimeError as error:
        if lost := distributed.connection_ended(error):
            raise TrainingError(lost) from error
        raise
    finally:
        distributed.leave()


def draw(folder: Path) -> list[Path]:
    """Draw the curves of a run."""
    from gptshake.report.plots_run import plot_noise_scale, plot_run

    return [*plot_run(folder), *plot_noise_scale(folder)]


def _module(order: _Order, context: Context, data: TokenDataModule, model: Any) -> GPTModule:
    """The network with its step, and what validates it."""
    from gptshake.training.evaluation import Evaluation, evaluate
    from gptshake.training.module import GPTModule

    group, val, most = context.ranks, order.store.val, order.cfg.trainer.limit_val_batches

    def between() -> None:
        (signum,) = group.all_reduce_max(SIGNALS.received or 0)
        if signum:
            raise Stop(signum)  # the checkpoint is written already, and says that the validation is due

    def validate() -> Evaluation:
        hidden = hidden_nats(context.run, val)
        return evaluate(model, data.val_dataloader(), val.bytes_per_target, hidden, most=most, between=between, ranks=group)

    schedule = schedule_of(order.cfg, order.warmup)
    return GPTModule(training_step(order.cfg, model, order.budget, schedule, ranks=group, say=context.run.say), context, validate)


def _fit(
    order: _Order,
    data: TokenDataModule,
    lease: RunLock,
    module: GPTModule,
    profiler: Profiler | None = None,
    expected_rate: float | None = None,
) -> None:
    """Build callbacks and Trainer, and train until the end.

    Raises:
        Stop: a signal came; the last finished step is saved.
    """
    from gptshake.training import checkpoint
    from gptshake.training.callbacks.checkpoint import Checkpoint
    from gptshake.training.callbacks.metrics import Metrics
    from gptshake.training.device import no_memory, out_of_memory
    from gptshake.training.trainer import RecordLogger

    cfg, start, options, context = order.cfg, order.start, order.cfg.trainer, module.context
    saved_step = checkpoint.our_state(start)["steps"] if start else None
    metrics = Metrics(expected_rate)
    last = Checkpoint(
        metrics,
        lease,
        val_check_interval=options.val_check_interval,
        max_seconds=parse_max_time(options.max_time) if options.max_time else None,
        save_minutes=options.save_minutes,
        patience=options.patience,
        saved_step=saved_step,
    )
    # A node without a target is an option of a callback that is not there, as debug=smoke gives them to callbacks=none.
    chosen = [make(node) for node in (cfg.callbacks or {}).values() if node and "_target_" in node]
    if context.ranks.rank:
        chosen = [callback for callback in chosen if not getattr(callback, "rank_zero_only", False)]
    lightning = {str(key): value for key, value in options.items() if key not in OURS and key != "_target_"}
    callbacks = [metrics, *chosen, last, *([profiler] if profiler else [])]
    trainer = builder(options)(budget=module.budget, callbacks=callbacks, record=RecordLogger(context), **lightning)
    batches = profiler.timed(data.train_dataloader()) if profiler else data.train_dataloader()
    try:
        with SIGNALS.deferred():
            trainer.fit(module, train_dataloaders=batches, ckpt_path=start, weights_only=True)
            if saved_step and saved_step >= module.budget.steps:  # Lightning found no step to take, and called nobody
                module.to(device_of(cfg))
                for callback in callbacks:
                    getattr(callback, "complete", lambda trainer, module: None)(trainer, module)
            last.save(trainer, module)
        (signum,) = context.ranks.all_reduce_max(SIGNALS.received or 0)
        if signum:
            raise Stop(signum)  # after the last step; resume runs the test
    except BaseException as error:
        with suppress(Exception):  # what the summary stumbles over shall not hide the error
            context.run.update(summary=summary_of(module))
        if out_of_memory(error):
            raise no_memory(module.budget) from error
        raise


def _test(order: _Order, data: TokenDataModule, module: GPTModule) -> dict[str, float]:
    """Losses of the best weights on the whole test split, which all ranks share; nothing where there is no test.

    Raises:
        TrainingError: they are not finite.
    """
    from gptshake.training import checkpoint
    from gptshake.training.evaluation import evaluate

    cfg, split = order.cfg, order.store.test
    if split is None or not order.tests or cfg.trainer.limit_val_batches is not None:
        return {}
    weights = checkpoint.load_weights(checkpoint.best_weights(order.launch.path)[0])
    module.model.to(device_of(cfg))
    if cfg.trainer.strategy == "fsdp" and module.context.ranks.size > 1:
        from gptshake.training.fsdp import load_whole

        load_whole(module.model, weights)
    else:
        module.model.load_state_dict(weights)
    hidden = hidden_nats(module.context.run, split)
    result = evaluate(module.model, data.test_dataloader(), split.bytes_per_target, hidden, ranks=module.context.ranks)
    if not math.isfinite(result.loss):
        raise TrainingError("The test loss is not finite: the best weights of this run are broken. Try a lower optimizer.lr.")
    return {"test/loss": result.loss, "test/bpb": result.bpb}


def summary_of(module: GPTModule) -> dict[str, float]:
    """The figures of the last finished step, of the best validation, and the speed of the whole run without its validations."""
    context = module.context
    row = context.row
    summary: dict[str, float] = {
        "train/tokens": module.tokens,
        "steps": module.steps,
        "best/val/loss": module.best_loss,
        "best/step": module.best_step or 0,
    } | ({"skipped_steps": module.step.skipped_steps} if module.step.skipped_steps else {})
    summary |= {key: row[key] for key in ("train/loss", "val/loss", "val/bpb") if key in row}
    logged = {key: value for key, value in row.items() if key not in COLUMNS} | context.logged  # by callbacks, also after the last step
    summary |= {key: float(value) for key, value in logged.items()}
    seconds = 0.0
    for part in column_chunks(context.run.path / "metrics.csv", ("step", "val/bpb", "perf/step_ms")):
        seconds += sum(part["perf/step_ms"]) / 1e3
        if module.best_step is not None and module.best_step in part["step"]:
            summary["best/val/bpb"] = part["val/bpb"][part["step"].index(module.best_step)]
    if seconds:
        rate = row["train/tokens"] / seconds
        summary["perf/tokens_per_s"] = rate
        if context.flops_per_token is not None:
            summary["perf/mfu"] = rate * context.flops_per_token / context.peak_flops
    return summary
