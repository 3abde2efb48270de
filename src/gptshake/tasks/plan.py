"""``task=plan``: what a run would cost before the night is spent: memory, hours, money, and what published laws say. Trains nothing."""

from contextlib import ExitStack
from dataclasses import replace

from omegaconf import DictConfig, OmegaConf

from gptshake import hardware
from gptshake.config.layout import packaged_conf
from gptshake.config.validate import check_groups
from gptshake.context import Context
from gptshake.data.store import TokenStore
from gptshake.errors import ConfigError
from gptshake.estimate.budget import AUTO, TOKENS_PER_PARAMETER
from gptshake.estimate.forecast import GEMM_SHARE, assumed_speed, run_seconds, step_seconds, steps_within
from gptshake.estimate.formatting import counted
from gptshake.files import expanded
from gptshake.model.config import GPTConfig
from gptshake.setup import forecast, resolve

LAUNCH_SECONDS = 4e-4  # in which a host starts the kernels of one block, forward and backward: the usual figure, not measured here


def run(context: Context) -> None:
    """Print the plan and draw it into ``task.folder``. Leaves no record.

    Raises:
        ConfigError: no model or no data was named, or a batch, a length or a device that cannot be had.
        GptshakeError: the trial step ended early, as for want of memory.
    """
    cfg, launch = context.config, context.launch
    check_groups(cfg)
    names = f"{launch.choices['model']}-{launch.choices['data']}"
    store = context.store
    facts = plan(cfg, store, f"{names.replace('-', ' · ')} · {store.label}")
    from gptshake.files import written
    from gptshake.report.plots_tasks import draw_plan
    from gptshake.report.tasks_text import plan_text

    print(plan_text(facts))
    print(written(lambda: draw_plan(facts, expanded(cfg.task.folder) / f"{names}-{cfg.task.device or 'here'}")))


def plan(cfg: DictConfig, store: TokenStore, title: str) -> dict[str, object]:
    """Settle the config, find the speed, and work everything out; as ``report.tasks_text`` shows it."""
    gpu = hardware.KNOWN_GPUS[cfg.task.device] if cfg.task.device else None
    asked, vocabulary = cfg.trainer.val_check_interval, store.tokenizer.vocab_size
    model = forecast.model_costs(cfg, vocabulary)
    flops = model.flops_per_token()
    with ExitStack() as stack:
        measure = None if gpu else stack.enter_context(forecast.stopwatch(store))  # before this process asks for a GPU
        if gpu and cfg.trainer.hours:
            raise ConfigError("trainer.hours is measured where a run trains: to plan for another device, use task.hours.")
        budget = resolve.resolve(cfg, store, measure, gpu)
        precision = cfg.trainer.precision
        peak_flops = hardware.known_peak(gpu.name, precision) if gpu else None
        device = forecast.device_of(cfg)
        if measure is not None and forecast.may_be_tried(cfg, store, budget):
            speed, how = measure(cfg, budget), "measured in a few trial steps"
        elif flops is None:
            raise ConfigError(
                "The speed is not known: nothing can be measured for this device, and the network does not say its flops_per_token() "
                "and cannot be counted. Give its config that method (docs/extending.md)."
            )
        elif gpu:
            reached, launch = cfg.task.mfu * (peak_flops or 0.0), LAUNCH_SECONDS * cfg.model.get("n_layer", 0)
            speed = assumed_speed(flops, budget.micro_batch_size * budget.block_size, reached, launch=launch)
            how = f"assumed, {cfg.task.mfu:.0%} of its peak"
        else:
            reached = GEMM_SHARE * hardware.measured_gemm_flops(device, precision)
            speed = assumed_speed(flops, budget.micro_batch_size * budget.block_size, reached)
            how = "guessed from a matrix product: a step would not fit"
    around = forecast.around(cfg, store, model, budget)
    base = hardware.CUDA_CONTEXT if device == "cuda" else speed.base_bytes
    memory = forecast.memory(cfg, model, budget.micro_batch_size, base)
    if speed.held_bytes is not None:
        memory = memory.holding(speed.held_bytes)
    step = step_seconds(budget.accumulation, speed)
    settings = precision if device != "cpu" else f"{precision}, {counted(cfg.trainer.threads, 'thread')}"
    price = cfg.task.price_per_hour if cfg.task.price_per_hour is not None or gpu is None else gpu.price_per_hour
    facts: dict[str, object] = {
        "title": title,
        "device": (f"{budget.devices} x " if budget.devices > 1 else "") + gpu.name if gpu else "this machine",
        "how": how,
        "settings": f"{budget.devices} devices, each {settings}" if budget.devices > 1 else settings,
        "parameters": model.params_by_part() if hasattr(model, "params_by_part") else {"all": model.num_params()},
        "non_embedding": model.num_params(non_embedding=True),  # what laws call N
        "flops_per_token": flops,
        "budget": budget,
        "memory": memory,
        "memory_there": gpu.memory if gpu else forecast.memory_there(cfg),
        "tokens_per_s": budget.tokens_per_step / step,
        "seconds": run_seconds(budget.steps, budget.accumulation, speed, around),
        "price_per_hour": None if price is None else price * budget.devices,
        "checkpoint_bytes": around.checkpoint_bytes,
        "lr": cfg.optimizer.get("lr"),
        "schedule": resolve.schedule_words(cfg, budget),
        "bytes_per_token": store.bytes_per_token,
    }
    if cfg.task.hours is not None:
        around = replace(around, interval=None) if asked == AUTO else around
        steps = steps_within(3600 * cfg.task.hours, budget.accumulation, speed, around)
        facts["within"] = {
            "hours": cfg.task.hours,
            "steps": steps,
            "epoch_tokens": budget.total_tokens / budget.epochs,
            "documents": store.train.n_documents,
            "presets": _presets(cfg, vocabulary, base, flops * budget.tokens_per_step / step) if flops is not None else [],
        }
    return facts


def _presets(cfg: DictConfig, vocab_size: int, base: int, flops: float) -> list[dict[str, object]]:
    """Each packaged model with as many tokens as suit its size, one sequence at a time, at the FLOPs per second of this plan."""
    rows: list[dict[str, object]] = []
    for file in (packaged_conf() / "model").glob("*.yaml"):
        model = GPTConfig(**OmegaConf.load(file).model, vocab_size=vocab_size)
        tokens = TOKENS_PER_PARAMETER * model.num_params()
        seconds, memory = tokens * model.flops_per_token() / flops, forecast.memory(cfg, model, 1, base).total
        rows.append({"name": file.stem, "parameters": model.num_params(), "tokens": tokens, "seconds": seconds, "memory": memory})
    return rows
