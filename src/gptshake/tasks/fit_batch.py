"""``task=fit_batch``: the largest micro-batch that fits the device, and the fastest one, from real steps in child processes."""

from gptshake import hardware
from gptshake.config.validate import check_groups
from gptshake.context import Context
from gptshake.estimate.formatting import counted, parse_bytes
from gptshake.files import expanded, written
from gptshake.setup import batch_finder


def run(context: Context) -> None:
    """Try sizes, print which to take, and put table and picture into ``task.folder``. Leaves no record."""
    cfg, choices = context.config, context.spec.choices
    check_groups(cfg)
    store = context.store
    cfg.data.micro_batch_size = 1  # it is what is looked for
    budget, device, asked = context.plan, context.device, cfg.task.memory
    from gptshake.report.plots_tasks import draw_fit_batch
    from gptshake.report.tasks_text import fit_batch_row, fit_batch_text

    limit = batch_finder.memory_limit(device)
    if asked is not None:
        limit = min(limit, parse_bytes("task.memory", str(asked)))
    gpus = hardware.gpus() if device != "cpu" else []
    name = gpus[0]["name"] if gpus else hardware.cpu_name()
    batch, finder = batch_finder.per_device(budget), batch_finder.BatchFinder(cfg, store, budget, limit)
    facts = {
        "title": f"{choices['model']} · {choices['data']} · {store.label}",
        "settings": f"{name}, {cfg.trainer.precision}" + (f", {counted(cfg.trainer.threads, 'thread')}" if device == "cpu" else ""),
        "block_size": budget.block_size,
        "batch_size": batch,
        "limit": limit,
        "tried": finder.tried,
    }
    print(f"Trying real steps of {facts['title']} on {facts['settings']} ...", flush=True)
    finder.search(
        saturates=device != "cuda" and asked is None,  # a slow device would need very long to fill a large memory
        report=lambda row: print(f"  {fit_batch_row(row, batch, budget.block_size)}", flush=True),
    )
    if device == "cuda" and asked is None:
        batch_finder.cache(cfg, store, finder.tried)
    print(fit_batch_text(facts))
    print(written(lambda: draw_fit_batch(facts, expanded(cfg.task.folder) / f"{choices['model']}-{choices['data']}")))
