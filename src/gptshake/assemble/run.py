"""cfg -> token store, budget, record, network, Lightning module, Trainer, training. Read ``train`` from top to bottom: it is the order of the data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from gptshake import hardware
from gptshake.assemble.opening import open_run, outcome, say_end, say_plan, show_data
from gptshake.assemble.parts import builder, make
from gptshake.assemble.settle import offset_rule, resolve, token_store, workers
from gptshake.assemble.weights import load_initial_weights
from gptshake.data.store import TokenStore
from gptshake.errors import Pruned, Stop
from gptshake.estimate import cost
from gptshake.estimate.budget import Budget, parse_max_time
from gptshake.record.launch import Launch
from gptshake.record.lease import Lease
from gptshake.record.run import Run
from gptshake.signals import SIGNALS

if TYPE_CHECKING:
    from gptshake.data.module import TokenDataModule
    from gptshake.training.bench import Bench
    from gptshake.training.module import GPTModule


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
        with outcome(run):
            return _train(cfg, launch, store, budget, run, lease, lines)
    finally:
        lease.release()


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
    data = data_module(cfg, store, budget)
    flops = cost.flops_per_token(model.config, store.tokenizer.vocab_size)
    gemm = hardware.measured_gemm_flops(device, cfg.trainer.precision)
    peak = hardware.peak_flops(device, cfg.trainer.precision)
    say_plan(
        cfg,
        run,
        store,
        budget,
        sum(parameter.numel() for parameter in model.parameters()),
        cost.train_seconds(budget.total_tokens, flops, gemm),
    )
    start = rewind(run) if launch.resumes else None
    show_data(run, store, data, begins=start is None)
    if cfg.init_from and start is None:
        load_initial_weights(cfg, model, store, run)
    bench = _bench(cfg, run, store, data, model, flops, peak, launch)
    return _fit(cfg, start, store, data, bench, lease, _module(cfg, model, budget, bench))


def data_module(cfg: DictConfig, store: TokenStore, budget: Budget) -> TokenDataModule:
    """Batches of the run's seed and budget."""
    module: TokenDataModule = builder(cfg.data)(
        store=store,
        block_size=cfg.model.block_size,
        batch_size=budget.batch_size,
        micro_batch_size=budget.micro_batch_size,
        seed=cfg.seed,
        offset=offset_rule(cfg),
        workers=workers(cfg),
    )
    return module


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
    trainer = builder(options)(budget=module.budget, callbacks=[recorder, *chosen, keeper], **lightning)
    try:
        with SIGNALS.deferred():
            trainer.fit(module, train_dataloaders=data.train_dataloader(), ckpt_path=start, weights_only=True)
            keeper.save(trainer, module)
    except Pruned:
        bench.run.update(summary=summary_of(module, bench))
        for sink in bench.sinks:
            sink.finish("pruned", bench.run.info["summary"])
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
    for sink in bench.sinks:
        sink.finish("ok", summary)
    say_end(run, summary)
    return summary


def summary_of(module: GPTModule, bench: Bench) -> dict[str, float]:
    """The figures of the last finished step."""
    row = bench.row
    summary: dict[str, float] = {
        "train/tokens": module.tokens,
        "steps": module.steps,
        "best/val/loss": bench.best_loss,
        "best/step": bench.best_step or 0,
    }
    return summary | {key: row[key] for key in ("train/loss", "val/loss", "val/bpb") if key in row}
