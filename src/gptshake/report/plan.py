"""A plan for the terminal and as a picture: what a run needs, how long it takes, what fits into given hours.

Takes the facts of ``tasks/plan.py`` (plain values); gives text, and a figure of memory, time and the numbers that decide.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gptshake.estimate import laws
from gptshake.estimate.budget import Budget
from gptshake.estimate.cost import Memory
from gptshake.estimate.forecast import doubts, epochs_in_words, too_often
from gptshake.estimate.words import counted, duration, short_bytes, short_count, short_rate
from gptshake.report.frame import BLUE, GREEN, GREY, ORANGE, VERMILION, caption, heading, look, save
from gptshake.report.tables import aligned

Facts = Mapping[str, Any]
COLOURS = (GREY, BLUE, "#56B4E9", GREEN, ORANGE, "#CC79A7")
BEYOND = 2  # models named that no longer fit
KEPT = 3  # checkpoints: the newest two and the best


def text(facts: Facts) -> str:
    """All of it but the picture, doubts last, where the eye is."""
    head = f"{facts['title']}\non {facts['device']}, {facts['settings']}; speed {facts['how']}"
    table = "\n".join(f"{name:<11} {value}" for name, value in rows(facts))
    inverse = [_within(facts)] if "within" in facts else []
    budget: Budget = facts["budget"]
    wrong = doubts(budget.epochs, facts["memory"].total, facts["memory_there"], budget.micro_batch_size)
    if "within" in facts and not too_often(budget.epochs):
        wrong += too_often(_epochs_within(facts), _hours(facts["within"]))
    said = [f"note: {note}" for note in budget.notes] + ([f"warning: {doubt}" for doubt in wrong] or ["no problems found"])
    return "\n\n".join([head, table, *inverse, "\n".join(said)])


def rows(facts: Facts) -> list[tuple[str, str]]:
    """The table: what, and its numbers."""
    budget: Budget = facts["budget"]
    memory: Memory = facts["memory"]
    parameters = facts["parameters"]
    parts = " + ".join(f"{name} {short_count(count)}" for name, count in parameters.items())
    spent = sum(facts["seconds"].values())
    took = " + ".join(f"{name} {duration(seconds)}" for name, seconds in facts["seconds"].items() if seconds >= 0.005 * spent)
    price = facts["price_per_hour"]
    return [
        ("parameters", f"{short_count(sum(parameters.values()))} = {parts}"),
        (
            "work",
            f"{short_count(facts['flops_per_token'])} FLOPs per token, {short_rate(facts['flops_per_token'] * budget.total_tokens)} in all",
        ),
        ("step", f"{budget.batch_in_words} of {budget.block_size:,} = {budget.tokens_per_step:,} tokens"),
        (
            "length",
            f"{counted(budget.steps, 'step')} = {short_count(budget.total_tokens)} tokens = {counted(budget.epochs, 'epoch', '.3g')} (limit: {budget.limit})",
        ),
        ("rate", (f"peak lr {short_rate(facts['lr'])}, " if facts["lr"] else "") + facts["schedule"]),
        ("memory", f"{' + '.join(f'{name} {short_bytes(size)}' for name, size in memory_parts(memory).items())}"),
        ("peak", f"{short_bytes(memory.total)} of {short_bytes(facts['memory_there'])}"),
        ("speed", f"{short_count(facts['tokens_per_s'])} tokens/s"),
        ("time", f"{duration(spent)} = {took}"),
        *([("cost", f"{price * spent / 3600:.2f} at {price:.2f} per hour")] if price is not None else []),
        (
            "disk",
            f"{short_bytes(facts['checkpoint_bytes'])} a checkpoint, {short_bytes(KEPT * facts['checkpoint_bytes'])} for the {KEPT} kept",
        ),
        *_laws(facts),
    ]


def memory_parts(memory: Memory) -> dict[str, int]:
    """The parts that make up the peak."""
    last = ("activations", memory.activations) if memory.activations >= memory.saving else ("saving a checkpoint", memory.saving)
    return {"process": memory.base, "weights": memory.weights, "gradients": memory.gradients, "optimizer": memory.optimizer} | dict([last])


def _laws(facts: Facts) -> list[tuple[str, str]]:
    budget: Budget = facts["budget"]
    n, d, batch = facts["n_blocks"], budget.total_tokens, budget.tokens_per_step
    advice = _advice(facts)
    flops = facts["flops_per_token"] * d
    ours = f"; this run has {short_rate(facts['lr'])}, {facts['lr'] / advice.lr:.2g} x that" if facts["lr"] else ""
    interval = f"{short_rate(advice.low)},{short_rate(advice.high)}"
    decay = f"weight decay {laws.timescale_weight_decay(n, d, batch, advice.lr):.2g}, " if d > n else ""  # nobody fitted it to less
    return [
        ("scaling law", f"{laws.law_sentence(n, d, batch, characters=facts['bytes_per_token'] < laws.CHARACTERS)}{ours}"),
        ("", f"to sweep it: -m optimizer.lr='tag(log,interval({interval}))'"),
        ("", f"{laws.deepseek_sentence(flops)}; {laws.kaplan_sentence(n)}"),
        ("", f"at this batch {decay}beta2 {laws.half_life_beta2(batch, d):.3g}"),
    ]


def _advice(facts: Facts) -> laws.Advice:
    budget: Budget = facts["budget"]
    characters = facts["bytes_per_token"] < laws.CHARACTERS
    return laws.advised_lr(facts["n_blocks"], budget.total_tokens, budget.tokens_per_step, characters=characters)


def _within(facts: Facts) -> str:
    """What fits into the hours asked for: of this model, of text, and which other models."""
    within, budget = facts["within"], facts["budget"]
    tokens = within["steps"] * budget.tokens_per_step
    epochs = _epochs_within(facts)
    documents = f" ({epochs * within['documents']:,.0f} documents like these)" if within["documents"] > 1 else ""
    lines = [
        f"In {_hours(within)}: {counted(within['steps'], 'step')} = {short_count(tokens)} tokens = {epochs_in_words(epochs)} of this text,"
        f" or one epoch of {short_bytes(tokens * facts['bytes_per_token'])}{documents}."
    ]
    presets = sorted(within["presets"], key=lambda row: (row["seconds"], row["name"]))
    fits = [row["name"] for row in presets if row["seconds"] <= 3600 * within["hours"] and row["memory"] <= facts["memory_there"]]
    largest = f"The largest model that fits is {fits[-1]}" if fits else "No model of ours fits"
    lines.append(f"{largest}, if each gets 20 tokens per parameter, one sequence at a time, and multiplies as fast as this one:")
    table = [["model", "parameters", "tokens", "time", "memory"]]
    for row in presets[: len(fits) + BEYOND]:
        sizes = (short_count(row["parameters"]), short_count(row["tokens"]), duration(row["seconds"]), short_bytes(row["memory"]))
        table.append([row["name"], *sizes])
    return "\n".join([*lines, aligned(table, left=(0,))])


def _epochs_within(facts: Facts) -> float:
    return float(facts["within"]["steps"] * facts["budget"].tokens_per_step / facts["within"]["epoch_tokens"])


def _hours(within: Facts) -> str:
    return "1 hour" if within["hours"] == 1 else f"{within['hours']:g} hours"


def draw(facts: Facts, folder: Path) -> list[Path]:
    """Write ``plan.png`` and ``plan.svg``; gives their paths."""
    with look():
        return save(figure(facts), folder, "plan")


def figure(facts: Facts) -> Figure:
    """Memory against the device's, time by part, and the numbers that decide."""
    picture = Figure(figsize=(8, 3.9))
    heading(picture, facts["title"], f"on {facts['device']}, {facts['settings']}  ·  speed {facts['how']}")
    above, below = picture.subplots(2, 1)
    picture.subplots_adjust(left=0.02, right=0.98, top=0.77, bottom=0.42, hspace=2.0)
    peak, there, spent = facts["memory"].total, facts["memory_there"], sum(facts["seconds"].values())
    _bar(above, memory_parts(facts["memory"]), short_bytes, f"peak of memory: {short_bytes(peak)} of {short_bytes(there)}", there)
    hours = facts["within"]["hours"] if "within" in facts else None
    asked = f" of {_hours(facts['within'])}" if hours else ""
    _bar(below, facts["seconds"], duration, f"time: {duration(spent)}{asked}", 3600 * hours if hours else None)
    _numbers(picture, facts)
    return picture


def _bar(axes: Axes, parts: Mapping[str, float], words: Callable[[float], str], title: str, limit: float | None) -> None:
    """One stacked bar, its parts named below; a line where the limit is, if that is in sight."""
    total, left = sum(parts.values()), 0.0
    for (name, size), colour in zip(parts.items(), COLOURS, strict=False):
        axes.barh(0, size, left=left, color=colour, edgecolor="white", linewidth=0.8, label=f"{name} {words(size)}")
        left += size
    seen = limit is not None and limit < 8 * total
    axes.set_xlim(0, 1.02 * max(total, limit or 0.0) if seen else 1.02 * total)
    if seen and limit is not None:
        axes.axvline(limit, color=VERMILION, linewidth=2.5)
        axes.annotate(
            words(limit),
            (limit, 1),
            (-5, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            size=9,
            color=VERMILION,
            ha="right",
        )
    caption(axes, title)
    axes.set_axis_off()
    axes.legend(
        loc="upper left", bbox_to_anchor=(-0.01, 0.06), ncols=len(parts), fontsize=8, handlelength=0.8, handletextpad=0.4, columnspacing=1.0
    )


def _numbers(picture: Figure, facts: Facts) -> None:
    budget: Budget = facts["budget"]
    spent, price = sum(facts["seconds"].values()), facts["price_per_hour"]
    advice = _advice(facts)
    cells = [
        ("parameters", short_count(sum(facts["parameters"].values()))),
        ("tokens", f"{short_count(budget.total_tokens)}, {counted(budget.epochs, 'epoch', '.3g')}"),
        ("steps", f"{budget.steps:,} of {short_count(budget.tokens_per_step)} tokens"),
        ("speed", f"{short_count(facts['tokens_per_s'])} tokens/s"),
        ("FLOPs", short_rate(facts["flops_per_token"] * budget.total_tokens)),
        ("cost", f"{price * spent / 3600:.2f}" if price is not None else "no price given"),
        ("a checkpoint", short_bytes(facts["checkpoint_bytes"])),
        ("scaling law", f"lr {short_rate(advice.lr)}, batch {short_count(float(f'{advice.batch:.2g}'))}"),
    ]
    for place, (name, value) in enumerate(cells):
        x, y = 0.02 + 0.245 * (place % 4), 0.21 - 0.15 * (place // 4)
        picture.text(x, y, name, size=8.5, color=GREY, va="bottom")
        picture.text(x, y - 0.008, value, size=10.5, va="top")
