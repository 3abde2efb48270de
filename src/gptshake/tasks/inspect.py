"""``task=inspect``: show what a model would see of the data, before a run is spent on garbage."""

from gptshake.config.validate import check_groups
from gptshake.console import printable
from gptshake.context import Context
from gptshake.data.inspection import inspect
from gptshake.files import expanded, written
from gptshake.record.names import safe


def run(context: Context) -> None:
    """Print counts, first blocks and warnings; write a picture into ``task.folder``. Leaves no record."""
    cfg = context.config
    check_groups(cfg, needed=("data", "tokenizer"))
    data, task, store = cfg.data, cfg.task, context.store
    block_size = cfg.model.block_size if cfg.model is not None else task.block_size
    offset = data.get("offset", "none")
    facts = inspect(store, block_size, n_shown=task.n_blocks, n_listed=task.n_tokens, seed=cfg.seed, offset=offset)
    from gptshake.report.plots_tasks import draw_inspection
    from gptshake.report.tasks_text import inspection_text

    batch_size = data.batch_size if isinstance(data.batch_size, int) else None  # as far as the config alone says it
    if data.batch_tokens:
        batch_size = int(data.batch_tokens) // block_size or None
    print(printable(inspection_text(facts, batch_size)))
    name = f"{safe(store.label) or 'text'}-{store.tokenizer.name}{store.tokenizer.vocab_size}"
    print(written(lambda: draw_inspection(facts, expanded(task.folder) / name)))
