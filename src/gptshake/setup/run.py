"""cfg -> token store, plan, record, network, Lightning module, Trainer, training. Read ``train`` from top to bottom: it is the order of the data.

``follow`` is the same for the ranks beside rank 0, without a record: they receive config, plan and checkpoint from it, and decide nothing.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import get_object
from omegaconf import DictConfig

from gptshake import distributed, energy, hardware, torchrun
from gptshake.context import Context, RunSpec
from gptshake.errors import ConfigError, DataError, GptshakeError, Pruned, Stop, TrainingError
from gptshake.estimate.budget import parse_max_time
from gptshake.record.lock import NullLock, RunLock, in_use
from gptshake.record.metrics import COLUMNS, column_chunks
from gptshake.record.run import NullRun, Run, status_of
from gptshake.setup import instantiate
from gptshake.setup.costs import check_run_capacity, model_costs, shards
from gptshake.setup.initial import initial_weights, read_initial_weights
from gptshake.setup.lifecycle import nothing_half_begun, open_run, outcome, report_data, report_end, report_plan, trackers_of
from gptshake.setup.resolve import copy_to_node, store_folder
from gptshake.setup.schedule import recorded_schedule
from gptshake.signals import SIGNALS
from gptshake.training.config import TrainerConfig

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from gptshake.data.module import TokenDataModule
    from gptshake.data.store import Split, TokenStore
    from gptshake.estimate.budget import Budget
    from gptshake.training.callbacks.checkpoint import Checkpoint
    from gptshake.training.callbacks.profiler import Profiler
    from gptshake.training.module import GPTModule

# Keys of the trainer that its builder does not take: limits, and what is read here.
OURS = TrainerConfig.__dataclass_fields__.keys() - {"accelerator", "devices", "precision", "strategy"}
_TRAINER, _CALLBACK = ("fit",), ("on_train_batch_end", "state_dict")  # what each must have


def check_parts(cfg: DictConfig, store: TokenStore, budget: Budget) -> None:
    """Refuse parts that cannot be made, before there is a run directory."""
    instantiate.check_importable(cfg)
    instantiate.check_call(cfg.trainer, ("budget", "callbacks", "record", *_lightning(cfg.trainer)))
    instantiate.check_class(cfg.trainer, _TRAINER)
    instantiate.check_call(cfg.data, instantiate.data_arguments(cfg, store, budget))
    instantiate.check_class(cfg.data, instantiate.DATA_MODULE)
    for node in (callbacks := _chosen_callbacks(cfg)):
        instantiate.check_call(node)
        instantiate.check_class(node, _CALLBACK)
    monitors = [node for node in callbacks if "monitor" in node and str(node._target_).startswith(("pytorch_lightning.", "lightning."))]
    if all(node in monitors or str(node._target_).startswith("gptshake.") for node in callbacks):  # so that none logs a metric of its own
        from gptshake.training.callbacks.metrics import MONITORED, not_logged

        for node in monitors:
            if node.monitor not in MONITORED and node.get("strict", True):
                raise ConfigError(not_logged(node._target_.rpartition(".")[2], node.monitor, MONITORED))
    instantiate.check_optimizer(cfg, store)
    if shards(cfg) > 1:  # refuse what cannot work on them
        from pytorch_lightning.callbacks import WeightAveraging

        targets = [get_object(node._target_) for node in callbacks]
        unfit = [target.__name__ for target in targets if isinstance(target, type) and issubclass(target, WeightAveraging)]
        if cfg.optimizer._target_ == "gptshake.optim.sgd.sgd" and cfg.optimizer.fused is True:
            unfit.append("optimizer.fused=true with optimizer=sgd")
        if unfit:
            raise ConfigError(f"{unfit[0]} does not work with trainer=fsdp: leave it out, or use trainer=ddp.")


def train(context: Context, profiler: Profiler | None = None) -> dict[str, float]:
    """Train, or resume a training; everything ends up in the run directory.

    Args:
        profiler: measures the training, and ends it early.
    Returns:
        Summary: final losses, bpb, tokens.
    Raises:
        GptshakeError: what failed; the record says so too.
        Stop: a signal ended the run; its last finished step is saved.
    """
    cfg, spec, store, budget = context.config, context.spec, context.store, context.plan
    check_run_capacity(cfg, store, budget, spec.path)
    check_parts(cfg, store, budget)
    context.trackers = trackers_of(cfg)
    read_initial_weights(context)
    device, trainer = context.device, cfg.trainer
    with ExitStack() as ends:
        ends.enter_context(nothing_half_begun(spec.path))
        if spec.resumes and spec.trial is None and status_of(spec.path) == "running":  # on another host, whose lock may not be seen here
            raise in_use(spec.path)
        lock = RunLock(spec.path)
        ends.callback(lock.release)
        for tracker in context.trackers:
            ends.callback(tracker.finish)
        with SIGNALS.deferred():  # a signal finds a record that can say so
            run = open_run(context)
            ends.enter_context(outcome(run))
        if SIGNALS.received is not None:
            raise Stop(SIGNALS.received)
        with distributed.together(trainer.devices, trainer.threads, device, lambda: SIGNALS.received) as context.ranks:
            from gptshake.training.checkpoint import resume_from  # torch from here on

            instantiate.set_torch(cfg)
            for line in context.lines:
                run.log(line)
            # Other nodes have counters of their own; trials share the CPU.
            if torchrun.nodes() == 1 and (device != "cpu" or spec.trial is None):
                run.meter = energy.Meter(energy.counters_of(device, trainer.devices))
            base = hardware.CUDA_CONTEXT if device == "cuda" else hardware.resident_bytes()
            model, data = instantiate.network(cfg, store), instantiate.data_module(cfg, store, budget, context.ranks)
            context.flops_per_token = model_costs(cfg, store.tokenizer.vocab_size).flops_per_token()
            context.peak_flops = trainer.devices * hardware.peak_flops(device, trainer.precision)
            gemm = hardware.measured_gemm_flops(device, trainer.precision)
            n_parameters = sum(parameter.numel() for parameter in model.parameters())
            run.update(model={"parameters": n_parameters, "flops_per_token": context.flops_per_token})
            expected_rate = report_plan(context, base, gemm)
            start = resume_from(run) if spec.resumes else None
            report_data(context, data, begins=start is None)
            if cfg.init_from and start is None:
                initial = context.initial or initial_weights(cfg, store.tokenizer, run.info)
                initial.load(model)
                run.say(f"weights from {initial.name}")
                context.initial = initial = None  # the network has them
            for tracker in context.trackers:
                tracker.start(run)
            context.row, context.draw = run.last_row(), draw
            context.ranks.broadcast((cfg, spec, store, budget, run.info, start, context.row))
            if lacking := next(filter(None, context.ranks.gather(None)), None):
                raise DataError(lacking)
            distributed.limit_waits()
            module = _module(context, model, data)
            callbacks = [profiler] if profiler else []
            fit, last = _trainer(context, lock, start, expected_rate if device == "cpu" and trainer.threads > 1 else None, callbacks)
            batches = data.train_dataloader()
            with _ending(fit, module, last, start):
                fit.fit(module, profiler.timed(batches) if profiler else batches, ckpt_path=start, weights_only=True)
            summary = summary_of(module) | _test(module, data)
        early = getattr(fit, "stopped_by", None) if summary["steps"] < budget.steps else None
        run.finish("ok", early and f"ended early by {early}", summary)
        report_end(context, summary)
    return summary


def follow() -> None:
    """Train along with rank 0, which decides and writes."""
    ranks = distributed.join()
    try:
        order: Any = ranks.broadcast()
        cfg, spec, store, budget, info, start, row = order
        SIGNALS.install()  # until now a signal ended this process at once
        store = store.at(store_folder(cfg, store.key))
        lacking = None if int(os.environ["LOCAL_RANK"]) else _lacking(cfg, spec, store)
        if any(ranks.gather(lacking)):
            distributed.leave()  # rank 0 says it, too
            if lacking:
                raise DataError(lacking)
            return
        distributed.limit_waits()
        context = Context(cfg, spec, lambda _: store, lambda _: budget, ranks=ranks, row=row)
        context.run = NullRun(spec.path, info)
        instantiate.set_torch(cfg)
        model, data = instantiate.network(cfg, store), instantiate.data_module(cfg, store, budget, ranks)
        if cfg.init_from and start is None:
            initial_weights(cfg, store.tokenizer, info).load(model)
        module = _module(context, model, data)
        fit, last = _trainer(context, NullLock(), start)
        with _ending(fit, module, last, start):
            fit.fit(module, data.train_dataloader(), ckpt_path=start, weights_only=True)
        _test(module, data)
        distributed.leave()
    except (Pruned, GptshakeError) as error:
        from gptshake.training.device import out_of_memory

        of_all = isinstance(error, Pruned | TrainingError) or error.is_shared
        if not of_all or (error.__cause__ and out_of_memory(error.__cause__)):  # of this rank
            raise
        distributed.leave()  # rank 0 says so; at an exit code here torchrun would stop it before it has recorded the error
    except RuntimeError as error:
        if lost := distributed.connection_ended(error):
            distributed.leave()
            raise TrainingError(lost) from error
        raise
    finally:
        distributed.leave(well=False)


def _lacking(cfg: DictConfig, spec: RunSpec, store: TokenStore) -> str | None:
    """A sentence about what another node than that of rank 0 needs and does not find; copies the token store if each node is to have its own."""
    node, shared = socket.gethostname(), "on a file system that all nodes share"
    if not (spec.path / "run.json").exists():
        return f"On {node} there is no run directory {spec.path.absolute()}: put paths.runs {shared}."
    own = ((Path(name), content) for name, content in spec.local_conf.items() if name.endswith(".py"))
    if other := next((file for file, content in own if file.is_file() and file.read_bytes() != content), None):
        return f"On {node} {other.absolute()} is not the file that rank 0 runs: put the working directory {shared}."
    try:
        copy_to_node(cfg, store.at(store_folder(cfg, store.key, shared=True)))
    except GptshakeError as error:
        return f"On {node}: {error}"
    problem = store.problem(verify=cfg.data.get("verify", False))
    return problem and (
        f"On {node} the token store {store.path} cannot be used: {problem}. Put paths.cache on a file system that all nodes share, or run "
        "task=inspect once on each node, which builds it there."
    )


def draw(folder: Path) -> list[Path]:
    from gptshake.report.plots_run import plot_noise_scale, plot_run

    return [*plot_run(folder), *plot_noise_scale(folder)]


def _module(context: Context, model: Any, data: TokenDataModule) -> GPTModule:
    """The network with its step, and what validates it."""
    from gptshake.training.evaluation import evaluate
    from gptshake.training.module import GPTModule

    cfg, run, ranks, val = context.config, context.run, context.ranks, context.store.val

    def between() -> None:
        (signum,) = ranks.all_reduce_max(SIGNALS.received or 0)
        if signum:
            raise Stop(signum)  # the checkpoint is written already, and says that the validation is due

    def validate() -> tuple[float, float]:
        most = cfg.trainer.limit_val_batches
        loss, _ = evaluate(model, data.val_dataloader(), most=most, between=between, ranks=ranks)
        return loss, _bits_per_byte(run, val, loss)

    step = instantiate.training_step(cfg, model, context.plan, recorded_schedule(cfg, run), ranks=ranks, say=run.say)
    return GPTModule(step, context, validate)


def _trainer(
    context: Context, lock: RunLock, start: Path | None, expected_rate: float | None = None, more: list[Any] | None = None
) -> tuple[pl.Trainer, Checkpoint]:
    """The Trainer with its callbacks, and the last but ``more`` of them, which ends each step."""
    from gptshake.training.callbacks.checkpoint import Checkpoint
    from gptshake.training.callbacks.metrics import Metrics
    from gptshake.training.checkpoint import our_state
    from gptshake.training.trainer import RecordLogger

    options, metrics = context.config.trainer, Metrics(expected_rate)
    last = Checkpoint(
        metrics,
        lock,
        val_check_interval=options.val_check_interval,
        max_seconds=parse_max_time(options.max_time) if options.max_time else None,
        save_minutes=options.save_minutes,
        patience=options.patience,
        saved_step=our_state(start)["steps"] if start else None,
    )
    chosen = [instantiate.made("callbacks", node, _CALLBACK) for node in _chosen_callbacks(context.config)]
    if context.ranks.rank:
        chosen = [callback for callback in chosen if not getattr(callback, "rank_zero_only", False)]
    callbacks = [metrics, *chosen, last, *(more or [])]
    objects = {"budget": context.plan, "callbacks": callbacks, "record": RecordLogger(context)}
    trainer: pl.Trainer = instantiate.builder(options)(**objects, **_lightning(options))
    instantiate.check_attributes(f"trainer._target_: {options._target_}", trainer, _TRAINER)
    return trainer, last


def _chosen_callbacks(cfg: DictConfig) -> list[DictConfig]:
    """A node without a target is an option of a callback that is not there, as debug=smoke gives them to callbacks=none."""
    return [node for node in (cfg.callbacks or {}).values() if node and "_target_" in node]


def _lightning(options: DictConfig) -> dict[str, Any]:
    return {str(key): value for key, value in options.items() if key not in OURS}


@contextmanager
def _ending(trainer: pl.Trainer, module: GPTModule, last: Checkpoint, start: Path | None) -> Iterator[None]:
    """Around ``trainer.fit``: save the last step, and record a summary however it ends."""
    from gptshake.training.callbacks.metrics import not_logged
    from gptshake.training.checkpoint import our_state
    from gptshake.training.device import no_memory, out_of_memory

    context = module.context
    saved_step = our_state(start)["steps"] if start else 0  # the training removes old checkpoints
    try:
        with SIGNALS.deferred():
            yield
            if saved_step >= module.budget.steps:  # Lightning found no step to take, and called nobody
                module.to(context.device)
                for callback in trainer.callbacks:  # type: ignore[attr-defined]
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
        for callback in trainer.callbacks if type(error) is RuntimeError else ():  # type: ignore[attr-defined]
            if isinstance(wanted := getattr(callback, "monitor", None), str) and wanted not in trainer.callback_metrics:
                raise ConfigError(not_logged(type(callback).__name__, wanted, trainer.callback_metrics)) from error
        raise


def _test(module: GPTModule, data: TokenDataModule) -> dict[str, float]:
    """Losses of the best weights on the whole test split, which all ranks share.

    Nothing where there is no test, before the first step, and in a trial of a sweep, or the winner would be chosen by the test.
    """
    from gptshake.training.checkpoint import best_until, folder_of, load_weights, read_shards, verify
    from gptshake.training.evaluation import evaluate

    context = module.context
    cfg, run, split = context.config, context.run, context.store.test
    if split is None or not module.steps or run.info.get("trial") is not None or cfg.trainer.limit_val_batches is not None:
        return {}
    folder = context.ranks.broadcast(None if context.ranks.rank else best_until(folder_of(run.path, module.steps), run.path))
    assert folder is not None  # rank 0 says so
    verify(folder, context.ranks)
    module.model.to(context.device)
    if cfg.trainer.strategy == "fsdp" and context.ranks.size > 1:
        from gptshake.training.fsdp import load_shards

        load_shards(module.model, read_shards(folder, "model"), context.ranks)
    else:
        module.model.load_state_dict(load_weights(folder))
    loss, _ = evaluate(module.model, data.test_dataloader(), ranks=context.ranks)
    if not math.isfinite(loss):
        raise TrainingError("The test loss is not finite: the best weights of this run are broken. Try a lower optimizer.lr.")
    return {"test/loss": loss, "test/bpb": _bits_per_byte(run, split, loss)}


def _bits_per_byte(run: Run, split: Split, loss: float) -> float:
    """Of a loss on a split; what unknown tokens hide counts, but not in a run of an earlier version, whose figures leave it out."""
    from gptshake.training.evaluation import bits_per_byte

    return bits_per_byte(loss, split.bytes_per_target, split.hidden_nats if "unknown" in run.info.get("data", {}) else 0.0)


def summary_of(module: GPTModule) -> dict[str, float]:
    """The figures of the last finished step, of the best validation, and the speed of the whole run without its validations."""
    context, row = module.context, module.context.row
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
