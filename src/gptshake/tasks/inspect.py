"""``task=inspect``: show what a model would see of the data, before a run is spent on garbage."""

from omegaconf import DictConfig

from gptshake.config.validate import check_groups
from gptshake.console import printable
from gptshake.context import Context
from gptshake.data.inspection import inspect
from gptshake.files import expanded
from gptshake.record.names import safe


def run(context: Context) -> None:
    """Print counts, first blocks and warnings; write a picture into ``task.folder``. Leaves no record.

    Raises:
        ConfigError: no data or no tokenizer was named.
        DataError: there is no text, or not enough for a block.
    """
    cfg = context.config
    check_groups(cfg, needed=("data", "tokenizer"))
    store = context.store
    block_size = cfg.model.block_size if cfg.model is not None else cfg.task.block_size
    offset = cfg.data.get("offset", "none")
    facts = inspect(store, block_size, n_shown=cfg.task.n_blocks, n_listed=cfg.task.n_tokens, seed=cfg.seed, offset=offset)
    from gptshake.files import written
    from gptshake.report.plots_tasks import draw_inspection
    from gptshake.report.tasks_text import inspection_text

    print(printable(inspection_text(facts, _batch_size(cfg, block_size))))
    name = f"{safe(store.label) or 'text'}-{store.tokenizer.name}{store.tokenizer.vocab_size}"
    print(written(lambda: draw_inspection(facts, expanded(cfg.task.folder) / name)))


def _batch_size(cfg: DictConfig, block_size: int) -> int | None:
    """Sequences of a step, as far as the config alone says them."""
    if cfg.data.batch_tokens:
        return int(cfg.data.batch_tokens) // block_size or None
    return cfg.data.batch_size if isinstance(cfg.data.batch_size, int) else None
