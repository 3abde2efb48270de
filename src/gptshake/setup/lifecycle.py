"""The record of a run at its two ends: opened with all that explains it, closed with how it ended, and what is printed then.

A run that is resumed is compared with its plan first.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from gptshake import hardware
from gptshake.context import Context
from gptshake.data.entropy import loss_in_words, references
from gptshake.data.store import round_trip, unknown_warnings
from gptshake.errors import ConfigError, GptshakeError, Pruned, RecordError, Stop
from gptshake.estimate.budget import Budget, parse_max_time
from gptshake.estimate.forecast import GEMM_SHARE, assumed_speed, run_seconds, run_warnings, step_seconds
from gptshake.estimate.formatting import counted, duration, short_bytes, short_count
from gptshake.files import as_seen_from_here, sha256_text, storage_error
from gptshake.record.lock import is_alive
from gptshake.record.names import task_name
from gptshake.record.provenance import CONFIG_HASH, config_sha256
from gptshake.record.run import Run, steps_saved
from gptshake.record.trackers.protocol import Tracker, as_tracker
from gptshake.redaction import redact_code, redacted
from gptshake.setup.costs import available_memory, memory, model_costs, overhead, shards
from gptshake.setup.instantiate import make
from gptshake.setup.resolve import resolved_source
from gptshake.setup.schedule import lr_transfer_note, recorded_schedule, schedule_text, warmup_notes, warmup_of
from gptshake.signals import stop_behind

if TYPE_CHECKING:
    from gptshake.data.module import TokenDataModule

RESOLVED = [f"data.{key}" for key in ("batch_size", "micro_batch_size", "workers")]
RESOLVED += [f"trainer.{key}" for key in ("accelerator", "devices", "precision", "threads", "val_check_interval")]


def trackers_of(cfg: DictConfig) -> list[Tracker]:
    logger: Any = cfg.logger or {}
    return [as_tracker(make(node)) for node in ([logger] if "_target_" in logger else logger.values())]


@contextmanager
def nothing_half_begun(path: Path) -> Iterator[None]:
    """Empty the new directory of a run that came to no record, as on a full disk; not that of another process which began it first."""
    begins = not path.exists()  # else Hydra may have made it
    empty = begins or not any(path.iterdir())
    try:
        yield
    except BaseException:
        if empty and path.exists() and not (path / "run.json").exists() and not is_alive(path):
            with suppress(OSError):  # what is raised counts
                for entry in path.iterdir():
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                if begins:
                    path.rmdir()
        raise


def open_run(context: Context) -> Run:
    """Begin the record of a new run, or open that of a run to resume, whose text and schedule must be those that it began with."""
    cfg, spec = context.config, context.spec
    run = context.run = _resume(context) if spec.resumes else _create(context)
    run.update(devices={"count": cfg.trainer.devices, "strategy": cfg.trainer.get("strategy") if cfg.trainer.devices > 1 else None})
    run.begin_session(spec.provenance.get("git", {}), cfg.trainer.get("price_per_hour"))
    if spec.resumes:
        _report_other_code(context)
    return run


def _create(context: Context) -> Run:
    cfg, spec, store, budget = context.config, context.spec, context.store, context.plan
    config: Any = redacted(OmegaConf.to_container(cfg, resolve=True))
    own_files = {name: redact_code(content, name) for name, content in spec.local_conf.items()}
    resolved = {key: value for key in RESOLVED if (value := OmegaConf.select(cfg, key)) is not None}  # data of a user's own may lack some
    begins = context.initial.facts if context.initial else {}
    if "pretrained" in begins:
        resolved["init_from"] = cfg.init_from
    if budget.measured:
        resolved |= {"trainer.max_steps": budget.steps, "trainer.hours": None}

    def fill(path: Path) -> None:
        spec.code.save(path)
        (path / "tokenizer").mkdir(exist_ok=True)
        store.tokenizer.save(path / "tokenizer")
        for name, content in own_files.items():
            file = path / (name if name.startswith("conf/") else f"code/{name}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    facts = {
        "task": task_name(str(cfg.task._target_)),
        "note": cfg.note,
        "seed": cfg.seed,
        "config_sha256": config_sha256(config),
        "config_sha256_version": CONFIG_HASH,
        "local_conf": {name: hashlib.sha256(content).hexdigest() for name, content in own_files.items()},
        "trial": spec.trial,
        "choices": spec.choices,
        "resolved": resolved | resolved_source(cfg),
        "budget": {
            "steps": budget.steps,
            "tokens": budget.total_tokens,
            "tokens_per_step": budget.tokens_per_step,
            "stop_rule": budget.stop_rule,
            "warmup_tokens": warmup_of(cfg, budget.total_tokens, budget.tokens_per_step),
        },
        "data": {
            "label": store.label,
            "licence": store.licence,
            "text": sha256_text(json.dumps(store.manifest["recipe"]["source"], sort_keys=True)),  # the same for every tokenizer
            "fingerprint": store.fingerprint,
            "store": store.key,
            "node_cache": cfg.paths.get("node_cache"),
            "tokenizer": store.tokenizer.digest,
            "vocab_size": store.tokenizer.vocab_size,
            "entropy": store.entropy,
            "bytes_per_token": store.bytes_per_token,
            "unknown": {split.name: {"share": split.unknown_share, "nats_per_token": split.hidden_nats} for split in store.splits},
        },
        "hardware": hardware.describe(),
    } | begins
    return Run.create(
        spec.path,
        id=spec.id,
        name=spec.name,
        config_yaml=OmegaConf.to_yaml(OmegaConf.create(config)),
        overrides=spec.overrides,
        fill=fill,
        **spec.provenance,
        **facts,
    )


def _resume(context: Context) -> Run:
    cfg, store = context.config, context.store
    run = Run.open(context.spec.path)
    try:
        fingerprint, plan = run.info["data"]["fingerprint"], run.info["budget"]
        steps = (run.info.get("extended") or {}).get("trainer.max_steps")
        planned = int(plan["tokens"] if steps is None else steps * plan["tokens_per_step"])  # as of the last extension
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{run.path / 'run.json'} lacks the data or the budget that {run.name} began with ({error}), so it cannot be resumed. "
            f"Start a new run from its weights: init_from={run.id}."
        ) from error
    if run.info.get("status") == "ok" and not steps_saved(run.path):
        raise RecordError(
            f"{run.name} has ended and its checkpoints were removed, so it cannot be resumed: starting over would replace its record. "
            f"To run it again: task=reproduce task.run={run.id}"
        )
    if store.fingerprint != fingerprint:
        raise RecordError(
            f"The text of {store.label} is not the one that {run.name} started with (fingerprint {fingerprint[:8]}, now "
            f"{store.fingerprint[:8]}). Restore the text, or start a new run from its weights: init_from={run.id}."
        )
    if planned != context.plan.total_tokens:
        _extend(cfg, run, context.plan, planned)
    if (parent := run.info.get("parent_path")) and (Path(parent) / "run.json").exists():
        cfg.init_from = parent  # what was typed may be relative to the folder where the run began
    if path := resolved_source(cfg).get("data.path"):
        run.update(extended={"data.path": path})  # the text may have moved: the next resume looks here
    run.update(status="running", reason=None)
    return run


def _extend(cfg: DictConfig, run: Run, budget: Budget, planned: int) -> None:
    """Record another length of the run. Both must give the same rate where the run continues, which may be an earlier checkpoint."""
    if cfg.trainer.get("extend") != "redecay" and budget.steps < (done := max(steps_saved(run.path), default=0)):
        raise ConfigError(
            f"{run.name} has done {counted(done, 'step')} already, so it cannot end after {budget.steps:,}: leave its limits as they were."
        )
    schedule, per_step = recorded_schedule(cfg, run), budget.tokens_per_step

    def same_rate(step: int) -> bool:
        return schedule(step * per_step, planned) == schedule(step * per_step, budget.total_tokens)

    if not same_rate(int(run.last_row().get("step", 0)) + 1):
        if cfg.trainer.get("extend") != "redecay":
            raise ConfigError(
                f"{run.name} was planned for {planned:,} tokens and its schedule falls towards that end; {budget.total_tokens:,} would bend it. "
                "Leave the limits as they were; go back to the last checkpoint before the decay, if one is kept: trainer.extend=redecay; "
                f"or start a new run from its weights: init_from={run.id}."
            )
        last = 0  # step with the same rate in both
        while same_rate(last + 1):
            last += 1
        if not any(step <= last for step in steps_saved(run.path)):
            raise ConfigError(
                f"{run.name} has no checkpoint from before its decay, which began after step {last:,}, to go back to: it is kept where the rate "
                f"was constant before it fell, as with scheduler=wsd. Start a new run from its weights: init_from={run.id}."
            )
        run.update(redecay=last)
    run.update(extended={"trainer.max_steps": budget.steps, "trainer.max_epochs": None, "trainer.max_tokens": None})


def _report_other_code(context: Context) -> None:
    """Report a resume with other code than the run began with, and save its uncommitted changes."""

    def described(git: Mapping[str, Any]) -> str:
        if "commit" not in git:
            return f"unversioned code ({str(git.get('code_sha256'))[:8]})"
        return f"commit {str(git['commit'])[:8]}{' and uncommitted changes' if git.get('dirty') else ''}"

    run, spec = context.run, context.spec
    began, now = run.info.get("git", {}), spec.provenance.get("git", {})
    if began.get("diff_sha256") != now.get("diff_sha256"):
        folder = run.path / f"sitting-{len(run.info['sittings'])}"
        folder.mkdir(exist_ok=True)
        spec.code.save(folder)
    if any(began.get(key) != now.get(key) for key in ("commit", "diff_sha256", "code_sha256")):
        run.say(f"note: this run was started with {described(began)} and is resumed with {described(now)}")


@contextmanager
def outcome(run: Run) -> Iterator[None]:
    """Write into the record how the run ended, if it did not end well."""
    try:
        yield
    except Pruned as pruned:
        run.finish("pruned", pruned.reason, run.info.get("summary"))
        run.say(f"pruned: {pruned.reason}")
        raise
    except (Stop, Exception) as error:
        run.require_directory()
        if stop := stop_behind(error):
            run.finish("interrupted", f"signal {stop.signum}")
            run.say(f"interrupted; resume with: gptshake resume={run.id}")
            raise stop from None
        known = error if isinstance(error, GptshakeError) else storage_error(error)
        run.finish("failed", str(known) if known else f"{type(error).__name__}: {error}")
        raise


def report_plan(context: Context, base: int, gemm: float) -> float | None:
    """Print in one line what the run will do, and in others what was decided for it and what looks wrong.

    Args:
        context: of the run, whose record is open.
        base: bytes that the process held before there was a network.
        gemm: FLOPs per second of a matrix product here.
    Returns:
        Tokens per second that the run should reach, roughly; None: not known.
    """
    cfg, run, store, budget = context.config, context.run, context.store, context.plan
    trainer, vocabulary = cfg.trainer, store.tokenizer.vocab_size
    model = model_costs(cfg, vocabulary)
    flops, seconds, rate = model.flops_per_token(), None, None
    if flops is not None:
        speed = assumed_speed(flops, budget.micro_batch_size * budget.block_size, gemm * GEMM_SHARE)
        seconds = sum(run_seconds(budget.steps, budget.accumulation, speed, overhead(cfg, store, model, budget)).values())
        rate = budget.tokens_per_step / step_seconds(budget.accumulation, speed)
    peak, available = memory(cfg, model, budget.micro_batch_size, base).sharded(shards(cfg)).total, available_memory(cfg)
    notes = [*budget.notes, *warmup_notes(cfg, budget), lr_transfer_note(run.info.get("lr_from"), budget)]
    for note in filter(None, [*notes, *run_warnings(budget.epochs, peak, available, budget.micro_batch_size)]):
        run.say(f"note: {note}")
    if local := run.info.get("local_conf"):
        run.say(f"note: files of your own: {', '.join(local)}")
    several = f"{trainer.devices} devices by {trainer.strategy}, each " if trainer.devices > 1 else ""
    run.say(
        f"plan: {short_count(run.info['model']['parameters'])} parameters | {store.label}, {short_count(store.train.n_tokens)} train tokens,"
        f" vocabulary {vocabulary} | {counted(budget.steps, 'step')} x {budget.batch_in_words} of {budget.block_size}"
        f" = {short_count(budget.total_tokens)} tokens, {counted(budget.epochs, 'epoch', '.3g')} (limit: {budget.limit})"
        f" | peak lr {OmegaConf.select(cfg, 'optimizer.lr') or 0:.3g}, {schedule_text(cfg, budget, recorded_schedule(cfg, run))}"
        f" | {several}{trainer.accelerator}, {trainer.precision},"
        f" {counted(trainer.threads, 'thread')}, memory {'not known' if peak is None else f'about {short_bytes(peak)}'} of {short_bytes(available)}"
        f" | {'time not known' if seconds is None else f'roughly {duration(seconds)}'}"
    )
    if trainer.max_time and seconds is not None and parse_max_time(trainer.max_time) < seconds:
        run.say(f"note: trainer.max_time={trainer.max_time} will probably end this run before its schedule does")
    return rate


def report_data(context: Context, data: TokenDataModule, *, begins: bool) -> None:
    """Print what the model will read, and what the tokenizer makes of three documents, so that garbage is seen at once."""
    run, store = context.run, context.store
    block = store.tokenizer.decode(data.sample_block().tolist())[:120]
    run.say(f"run: {run.path}")
    run.say(f"first block ({store.bytes_per_token:.2f} bytes per token): {block!r}")
    verdict = round_trip(store)
    run.say(verdict)
    for warning in unknown_warnings(store):
        run.say(f"warning: {warning}")
    if begins:
        run.sample(0, 0, f"{block}\n\n{store.bytes_per_token:.2f} bytes per token; {verdict}", title="first training block")


def report_end(context: Context, summary: dict[str, float]) -> None:
    """Print what came out and what it means, where it lies, and what to do next."""
    run, store, budget, most = context.run, context.store, context.plan, context.config.trainer.limit_val_batches
    overfit = (run.info.get("choices") or {}).get("debug") == "overfit"
    parts = [f"val loss {summary['val/loss']:.4f} nats per token, {summary['val/bpb']:.4f} bits per byte" if "val/loss" in summary else ""]
    if overfit:  # a few blocks by heart: what other text costs means nothing
        parts = [f"train loss {summary['train/loss']:.4f} nats per token, near 0 if the model can learn at all"]
    parts += [f"test {summary['test/bpb']:.4f} bpb" if "test/bpb" in summary else "", f"after {summary['train/tokens']:,.0f} tokens"]
    parts += [f"{counted(skipped, 'step')} skipped by the loss scale" if (skipped := summary.get("skipped_steps")) else ""]
    early = f"{run.info.get('reason') or 'ended early'}, after step {summary['steps']:,} of {budget.steps:,}"
    how = early if summary["steps"] < budget.steps else "done"
    run.say(f"{how}: {' | '.join(part for part in parts if part)}")
    if run.info.get("trial") is None and "val/loss" in summary and not overfit:  # a trial is judged by its study
        with suppress(FileNotFoundError):  # the cache was removed during the run
            scored = store.val.tokens()[: most and most * budget.micro_batch_size * budget.block_size + 1]
            run.say(f"  {loss_in_words(summary['val/loss'], references(store.train, scored, store.tokenizer.vocab_size))}")
    for name, path in (("record", run.path), ("curves", run.path / "plots" / "loss.png"), ("samples", run.path / "samples.md")):
        if Path(path).exists():
            run.say(f"  {name + ':':<9}{as_seen_from_here(path)}")
    run.say(f"  next:    gptshake task=sample task.run={run.id} task.prompt='The '")
