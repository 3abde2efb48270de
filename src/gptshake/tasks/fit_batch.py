"""``task=fit_batch``: the largest micro-batch that fits the device, and the fastest one, from real steps in child processes."""

from gptshake import hardware
from gptshake.config.validate import check_groups
from gptshake.context import Context
from gptshake.estimate.batch_size import Tried
from gptshake.estimate.formatting import parse_bytes
from gptshake.files import expanded, written
from gptshake.setup import batch_finder, forecast


def run(context: Context) -> None:
    """Try sizes, say which to take, and put table and picture into ``task.folder``. Leaves no record.

    Raises:
        ConfigError: no model or no data was named, a device that cannot be had, or a memory in which not even one sequence fits.
        GptshakeError: a step that failed for another reason than memory.
    """
    cfg, launch = context.config, context.launch
    check_groups(cfg)
    store = context.store
    names = f"{launch.choices['model']}-{launch.choices['data']}"
    with batch_finder.fitter(cfg, store) as fitter:  # before this process asks for a GPU
        cfg.data.micro_batch_size = 1  # it is what is looked for
        budget = context.plan
        from gptshake.report.plots_tasks import draw_fit_batch
        from gptshake.report.tasks_text import fit_batch_row, fit_batch_text

        device, precision, threads = context.device, cfg.trainer.precision, cfg.trainer.threads
        limit = batch_finder.memory_limit(device)
        if cfg.task.memory is not None:
            limit = min(limit, parse_bytes("task.memory", str(cfg.task.memory)))
        to_the_limit = device == "cuda" or cfg.task.memory is not None  # a slow device would need very long to fill a large memory
        batch, tried = budget.accumulation, list[Tried]()
        facts = {
            "title": f"{names.replace('-', ' · ')} · {store.label}",
            "settings": f"{_name(device)}, {precision}" + (f", {threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else ""),
            "block_size": budget.block_size,
            "batch_size": batch,
            "limit": limit,
            "tried": tried,
        }
        print(f"Trying real steps of {facts['title']} on {facts['settings']} ...", flush=True)
        fitter.search(
            cfg,
            forecast.model_costs(cfg, store.tokenizer.vocab_size),
            budget,
            limit,
            tried=tried,
            saturates=not to_the_limit,
            say=lambda row: print(f"  {fit_batch_row(row, batch, budget.block_size)}", flush=True),
        )
        if device == "cuda" and cfg.task.memory is None:
            fitter.keep(tried)
    print(fit_batch_text(facts))
    print(written(lambda: draw_fit_batch(facts, expanded(cfg.task.folder) / names)))


def _name(device: str) -> str:
    names = [gpu["name"] for gpu in hardware.gpus()] if device != "cpu" else []
    return names[0] if names else hardware.cpu_name()
