"""``task=plan``: what a run would cost before the night is spent: memory, hours, money, and what published laws say. Trains nothing."""

from gptshake import hardware
from gptshake.config.layout import packaged_conf
from gptshake.config.validate import check_groups
from gptshake.context import Context
from gptshake.files import expanded, written
from gptshake.setup.plan import plan


def run(context: Context) -> None:
    """Print the plan and draw it into ``task.folder``. Leaves no record."""
    cfg, choices = context.config, context.spec.choices
    check_groups(cfg)
    gpu = hardware.KNOWN_GPUS[cfg.task.device] if cfg.task.device else None
    title, presets = f"{choices['model']} · {choices['data']} · {context.store.label}", (packaged_conf() / "model").glob("*.yaml")
    facts = plan(cfg, context.store, title, gpu, cfg.task.hours, presets)
    from gptshake.report.plots_tasks import draw_plan
    from gptshake.report.tasks_text import plan_text

    print(plan_text(facts))
    name = f"{choices['model']}-{choices['data']}-{cfg.task.device or 'here'}"
    print(written(lambda: draw_plan(facts, expanded(cfg.task.folder) / name)))
