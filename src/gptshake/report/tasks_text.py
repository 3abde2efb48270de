"""What the tasks find_lr, fit_batch, plan, profile, inspect and evaluate print: tables, and in the last lines what to do.

Takes the plain values of each task; ``plots_tasks.py`` draws the same values.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptshake.console import aligned, cut, one_line
from gptshake.estimate import laws
from gptshake.estimate.batch_size import Tried, fastest, largest
from gptshake.estimate.budget import Budget, micro_batch
from gptshake.estimate.forecast import epochs_in_words, run_warnings, too_often
from gptshake.estimate.formatting import counted, duration, percent, short_bytes, short_count, short_rate, three_digits
from gptshake.estimate.memory import Memory
from gptshake.estimate.noise_scale import two_digits
from gptshake.report.series import BLUE, INK, ORANGE, VERMILION
from gptshake.report.study_text import quoted

Facts = Mapping[str, Any]
LR_RULES = {
    "steep": "steepest fall",
    "valley": "valley",
    "minimum": "minimum / 10",
    "slide": "slide",
    "middle": "middle of the near-optimal interval",
}
STEP_PARTS = {
    "data": "waiting for data",
    "transfer": "copying to device",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "logging": "record, callbacks",
    "other": "the loop",
}
KEPT = 3  # checkpoints: the newest two and the best
EVALUATED = ["run", "step", "tokens", "loss", "±", "perplexity", "bits/byte", "±", "bits/char", "±"]
EVALUATED += ["word ppl.", "byte ppl.", "unknown", ""]
STEEP = 0.5  # share of its loss that a short run loses after its first quarter, from which on it says little about a longer one
SHOWN = 60  # columns of a document's name, and of its beginning, in an evaluation


def find_lr_text(info: Facts, overrides: Sequence[str]) -> list[str]:
    """The estimates, then the recommendation and why, from run.json; ``overrides`` are those of the training that it is for."""
    found = info["find_lr"]
    interval = f" ({lr_interval(found)})" if found.get("low") is not None else ""
    which = "median of the range test, the published laws and optimizer.lr" if found.get("law") else "middle of the range test"
    reason = f"{which}; no run has confirmed it"
    if found.get("confirm"):
        is_run = any(math.isclose(run["lr"], found["lr"], rel_tol=0.01) for run in found["confirm"])
        which = "best" if is_run else "middle of the best two, which are within the usual noise of 0.5 %,"
        reason = f"{which} of {len(found['confirm'])} runs of {counted(found['steps'], 'step')}, each with its whole schedule"
    name, rate, _ = _configured_lr(found)
    ratios = [f"{two_digits(found['lr'] / rate)} x {name if name != 'preset' else 'the preset'} ({short_rate(rate)})"]
    if last := found.get("last"):
        ratio = two_digits(found["lr"] / last["lr"])
        ratios.append(f"{ratio} x the last run of this model and data ({short_rate(last['lr'])}, {last['id']})")
    # Why the recommendation may be off, and what would make it certain.
    warnings, runs = list[str](), found.get("confirm") or []
    if found.get("ramps") and not found.get("rules"):
        start = short_rate(found.get("law") or found["declared"])
        warnings.append(f"The loss did not fall at any rate of the range test, so the runs started at {start}.")
    if found.get("still_falls"):
        warnings.append(
            f"The loss still fell at the end of the range test, {short_rate(found['ramps']['rates'][-1])}, so it says little: "
            "a higher task.high looks further, a higher task.steps more slowly."
        )
    ended = sum(run["value"] is not None and math.isfinite(run["value"]) for run in runs)
    if runs and found.get("low") is None:
        warnings.append(
            f"{counted(ended, 'run')} of {len(runs)} ended with a loss, and an interval needs two: how far the best reaches, and whether it lies "
            f"beyond what was run, is not known. task.confirm={max(4, len(runs) + 3)} looks further."
        )
    if (found.get("fell") or 0) > STEEP and found["steps"] < found["of_steps"]:
        warnings.append(
            f"Warning: the best of the short runs lost {100 * found['fell']:.0f} % of its loss after its first quarter: where the loss falls so fast, "
            f"another rate is often better in the whole run. A sweep of whole runs is sure:  gptshake -m {' '.join(map(quoted, overrides))} "
            "optimizer.lr=range"
        )
    if found.get("edge"):
        warnings.append(f"The best is at the {found['edge']} end of what was run: task.confirm={len(runs) + 3} looks further.")
    return [
        "estimates:",
        *(f"  {name:<37}{short_rate(rate)}" for name, rate, _ in lr_estimates(found)[:-1]),
        f"  scaling law: {found['law_says'].removeprefix('law says ')}",
        f"optimizer.lr={short_rate(found['lr'])} is the peak to train with{interval}: {reason}.",
        *([f"It is the peak of this run's schedule: {found['schedule']}."] if "schedule" in found else []),  # older records lack it
        f"That is {' and '.join(ratios)}.",  # an exponent is easily misread
        *warnings,
        "  picture: plots/lr_range.png in the record",
        f"  next:    gptshake {' '.join(map(quoted, overrides))} optimizer.lr=from:{info['id']}",
    ]


def lr_estimates(found: Facts) -> list[tuple[str, float, str]]:
    """Name, rate and colour of every estimate; the recommendation last."""
    rules, last = found.get("rules") or {}, found.get("last") or {}
    rows = [(name, rules.get(rule), BLUE) for rule, name in LR_RULES.items()]
    rows += [("high, for one cycle", rules.get("one_cycle"), BLUE)] if found.get("one_cycle") else []
    rows += [("published laws", found.get("law"), ORANGE), _configured_lr(found), (f"last run {last.get('id', '')}", last.get("lr"), INK)]
    rows += [("recommended", found.get("lr"), VERMILION)]
    return [(name, rate, colour) for name, rate, colour in rows if rate is not None]


def _configured_lr(found: Facts) -> tuple[str, float, str]:
    """The rate that the command would train with: the preset's, unless another was typed."""
    typed = found.get("preset") is None or not math.isclose(found["preset"], found["declared"], rel_tol=1e-6)
    return ("optimizer.lr", found["declared"], INK) if typed else ("preset", found["preset"], INK)


def lr_interval(found: Facts) -> str:
    """The near-optimal interval in words: without measured noise it ends at rates that were tried."""
    low, high = short_rate(found["low"]), short_rate(found["high"])
    return f"the best is from {low} to {high}" if found.get("assumed") else f"{low} to {high} are indistinguishable from it"


def fit_batch_row(row: Tried, batch: int, block_size: int) -> str:
    size = f"{row.size:>5} sequence{'s' if row.size > 1 else ' '}"
    if not row.fits:
        return f"{size}  {'do' if row.size > 1 else 'does'} not fit: {row.why}"
    return f"{size}  {short_count(row.rate(batch) * block_size):>6} tokens/s  {short_bytes(row.peak or 0):>8}"


def fit_batch_text(facts: Facts) -> str:
    tried, batch, block = sorted(facts["tried"], key=lambda row: row.size), facts["batch_size"], facts["block_size"]
    best, beyond, most = fastest(tried, batch), fastest(tried, batch, beyond=True), largest(tried)
    fast = "fastest" if beyond.size <= batch else f"fastest for steps of {batch}"
    marks = ((fast, best), ("fastest of all", beyond if beyond.size > batch else None), ("largest that fits", most))
    table = [["micro-batch", "tokens/s", "ms a pass", "peak memory", ""]]
    for row in tried:
        numbers = [short_count(row.rate(batch) * block), f"{1000 * row.micro_batch:.3g}"] if row.fits else ["", ""]
        note = ", ".join(word for word, marked in marks if row is marked)
        if not row.fits:
            note = "does not fit" if row.peak else f"does not fit: {row.why}"
        table.append([str(row.size), *numbers, short_bytes(row.peak) if row.peak else "", note])
    return f"\n{aligned(table)}\n\n{fit_batch_sentence(facts)}"


def fit_batch_sentence(facts: Facts) -> str:
    """What to write into the next command, and what else fits."""
    tried, batch, block = facts["tried"], facts["batch_size"], facts["block_size"]
    best, beyond, most = fastest(tried, batch), fastest(tried, batch, beyond=True), largest(tried)
    use = micro_batch(batch, best.size)
    divided = f" (it divides the batch of {batch}; {best.size} was tried)" if use != best.size else ""
    where, more = "here", ""
    if beyond.size > batch:
        where = f"for steps of {counted(batch, 'sequence')}"
        more = f" (larger steps go up to {short_count(beyond.rate(batch) * block)}, {beyond.size} at once)"
    end = "still fits, and larger sizes are not faster" if all(row.fits for row in tried) else "is the largest that fits"
    speed = f"{best.rate(batch) * block:,.0f} tokens/s with {short_bytes(best.peak or 0)} of {short_bytes(facts['limit'])}"
    return f"data.micro_batch_size={use}{divided} is the fastest {where}: {speed}{more}; {most.size} {end}."


def plan_text(facts: Facts) -> str:
    budget: Budget = facts["budget"]
    head = f"{facts['title']}\non {facts['device']}, {facts['settings']}; speed {facts['how']}"
    table = "\n".join(f"{name:<11} {value}" for name, value in _plan_rows(facts))
    within = _within(facts) if "within" in facts else ""
    warnings = run_warnings(budget.epochs, facts["memory"].total, facts["memory_there"], budget.micro_batch_size)
    if within and not too_often(budget.epochs):
        warnings += too_often(_epochs_within(facts), counted(facts["within"]["hours"], "hour", "g"))
    last = [f"note: {note}" for note in budget.notes] + ([f"warning: {warning}" for warning in warnings] or ["no problems found"])
    return "\n\n".join(filter(None, [head, table, within, "\n".join(last)]))


def _plan_rows(facts: Facts) -> list[tuple[str, str]]:
    budget: Budget = facts["budget"]
    parts = " + ".join(f"{name} {short_count(count)}" for name, count in facts["parameters"].items())
    flops, price, unit = facts["flops_per_token"], facts["price_per_hour"], facts["currency"]
    d, spent = budget.total_tokens, sum(facts["seconds"].values())
    took = " + ".join(f"{name} {duration(seconds)}" for name, seconds in facts["seconds"].items() if seconds >= 0.005 * spent)
    length = f"{counted(budget.steps, 'step')} = {short_count(budget.total_tokens)} tokens = {counted(budget.epochs, 'epoch', '.3g')}"
    checkpoint = facts["checkpoint_bytes"]
    return [
        ("parameters", f"{short_count(sum(facts['parameters'].values()))} = {parts}"),
        ("work", f"{short_count(flops)} FLOPs per token, {short_rate(flops * d)} in all" if flops else "FLOPs not known"),
        ("step", f"{budget.batch_in_words} of {budget.block_size:,} = {budget.tokens_per_step:,} tokens"),
        ("length", f"{length} (limit: {budget.limit})"),
        ("rate", (f"peak lr {short_rate(facts['lr'])}, " if facts["lr"] else "") + facts["schedule"]),
        ("memory", " + ".join(f"{name} {short_bytes(size)}" for name, size in memory_parts(facts["memory"]).items())),
        ("peak", peak_of(facts)),
        ("speed", f"{short_count(facts['tokens_per_s'])} tokens/s"),
        ("time", f"{duration(spent)} = {took}"),
        *([("cost", f"{unit}{price * spent / 3600:.2f} at {unit}{price:.2f} per hour")] if price is not None else []),
        ("disk", f"{short_bytes(checkpoint)} a checkpoint, {short_bytes(KEPT * checkpoint)} for the {KEPT} kept"),
        *zip(("scaling law", "", "", ""), _law_lines(facts), strict=False),
    ]


def _law_lines(facts: Facts) -> list[str]:
    """What published laws say of the run; all of them were fitted with AdamW."""
    if not facts["laws"]:
        return [laws.NO_LAW]
    budget, flops, recommended, n = facts["budget"], facts["flops_per_token"], recommendation_of(facts), facts["non_embedding"]
    d, batch = budget.total_tokens, budget.tokens_per_step
    ours = f"; this run has {short_rate(facts['lr'])}, {facts['lr'] / recommended.lr:.2g} x that" if facts["lr"] else ""
    decay = f"weight decay {laws.timescale_weight_decay(n, d, batch, recommended.lr):.2g}, " if d > n else ""  # nobody fitted it to less
    return [
        f"{laws.law_sentence(n, d, batch, characters=facts['bytes_per_token'] < laws.CHARACTERS)}{ours}",
        f"to sweep it: -m optimizer.lr='tag(log,interval({short_rate(recommended.low)},{short_rate(recommended.high)}))'",
        "; ".join([*([laws.deepseek_sentence(flops * d)] if flops else []), laws.kaplan_sentence(n)]),
        f"of AdamW at this batch {decay}beta2 {laws.half_life_beta2(batch, d):.3g}",
    ]


def memory_parts(memory: Memory) -> dict[str, int]:
    parts = {"process": memory.base, "weights": memory.weights, "gradients": memory.gradients, "optimizer": memory.optimizer}
    held = (memory.activations or 0) + memory.copies
    return parts | ({"activations": held} if held >= memory.saving else {"saving a checkpoint": memory.saving})


def peak_of(facts: Facts) -> str:
    memory = facts["memory"]
    known = f"at least {short_bytes(memory.least)}, activations not known," if memory.total is None else short_bytes(memory.total)
    return f"{known} of {short_bytes(facts['memory_there'])}"


def recommendation_of(facts: Facts) -> laws.Recommendation:
    budget, characters = facts["budget"], facts["bytes_per_token"] < laws.CHARACTERS
    return laws.recommended_lr(facts["non_embedding"], budget.total_tokens, budget.tokens_per_step, characters=characters)


def _within(facts: Facts) -> str:
    """What fits into the hours asked for: of this model, of text, and which other models."""
    within, epochs = facts["within"], _epochs_within(facts)
    tokens = within["steps"] * facts["budget"].tokens_per_step
    documents = f" ({epochs * within['documents']:,.0f} documents like these)" if within["documents"] > 1 else ""
    steps = f"In {counted(within['hours'], 'hour', 'g')}: {counted(within['steps'], 'step')} = {short_count(tokens)} tokens"
    text = f"{steps} = {epochs_in_words(epochs)} of this text, or one epoch of {short_bytes(tokens * facts['bytes_per_token'])}{documents}."
    presets = sorted(within["presets"], key=lambda row: (row["seconds"], row["name"]))
    fits = [row["name"] for row in presets if row["seconds"] <= 3600 * within["hours"] and row["memory"] <= facts["memory_there"]]
    largest = f"The largest model that fits is {fits[-1]}" if fits else "No model of ours fits"
    rule = f"{largest}, if each gets 20 tokens per parameter, one sequence at a time, and computes as many FLOPs per second as this run:"
    table = [["model", "parameters", "tokens", "time", "memory"]]
    for row in presets[: len(fits) + 2]:  # and two that no longer fit
        sizes = (short_count(row["parameters"]), short_count(row["tokens"]), duration(row["seconds"]), short_bytes(row["memory"]))
        table.append([row["name"], *sizes])
    return "\n".join([text, rule, aligned(table, left=(0,))])


def _epochs_within(facts: Facts) -> float:
    return float(facts["within"]["steps"] * facts["budget"].tokens_per_step / facts["within"]["epoch_tokens"])


def profile_text(facts: Facts) -> str:
    batch, n_steps = facts["batch"], counted(len(facts["steps"]["measured_s"]), "step")
    accumulated = f" = {batch['accumulation']} micro-batches" if batch["accumulation"] > 1 else ""
    from_few = f", estimated from {batch['measured']} of them" if batch["measured"] < batch["accumulation"] else ""
    head = f"{profile_numbers(facts)}\nmeasured: {n_steps} of {counted(batch['size'], 'sequence')}{accumulated}{from_few}"
    step = [["a step", "median ms", "mean ms", "share", ""]]
    for part in facts["parts"]:
        numbers = (f"{1e3 * part['median_s']:,.2f}", f"{1e3 * part['mean_s']:,.2f}", f"{100 * part['share']:.1f} %")
        step.append([STEP_PARTS[part["name"]], *numbers, ""])
    step.append(["all", "", f"{1e3 * facts['step_s']:,.2f}", "", ""])
    slow = [f"{name} {1e3 * seconds:.2g} ms" for name, seconds in list(facts["callbacks"].items())[:3]]
    beside = [f"slowest callbacks, a step: {', '.join(slow)}"] if slow else []
    for name, row in facts["occasions"].items():
        beside.append(f"a {name} takes {three_digits(row['seconds'])} s ({row['times']} seen); not included in the step above")
    total = sum(facts["start"].values())
    start = [["the start", "seconds", "share", ""]]
    start += [[name, f"{seconds:.2f}", f"{100 * seconds / total:.1f} %", ""] for name, seconds in start_phases(facts).items()]
    start.append(["all", f"{total:.2f}", "", ""])
    verdict = [textwrap.fill(sentence, 118, break_on_hyphens=False, break_long_words=False) for sentence in facts["verdict"]]
    parts = [head, aligned(step, left=(0,)), "\n".join(beside), aligned(start, left=(0,)), "\n".join(verdict)]
    return "\n\n".join(filter(None, parts))


def profile_numbers(facts: Facts) -> str:
    """Time of a step, speed, and where it was measured, in one line."""
    cost = facts["measuring"]
    parts = [
        f"a step takes {three_digits(1e3 * facts['step_s'])} ms",
        f"{short_count(facts['tokens_per_s'])} tokens/s",
        "MFU not known" if facts["mfu"] is None else f"MFU {facts['mfu']:.2g}",
        f"{facts['data']}, {facts['device']}",
        f"measuring costs {percent(cost)}" if cost >= 0.0005 else "measuring costs less than the noise",
    ]
    return "  ·  ".join(parts)


def start_phases(facts: Facts) -> dict[str, float]:
    return {name: seconds for name, seconds in facts["start"].items() if seconds >= 0.005}


def inspection_text(facts: Facts, batch_size: int | None) -> str:
    """Counts, tokens and blocks of a token store, warnings last; the steps of an epoch where the batch size is known."""
    rows = [["split", "documents", "tokens", "characters", "bytes", "bytes/token", "unknown"]]
    for split in facts["splits"]:
        counts = (f"{split[key]:,}" for key in ("n_documents", "n_tokens", "n_characters", "n_bytes"))
        rows.append([split["name"], *counts, f"{split['bytes_per_token']:.3f}", f"{split['unknown']:.3%}"])
    sampled = f"\n(frequencies: of {short_count(facts['sampled'])} tokens spread over a split)" if facts["sampled"] else ""
    steps = f" = {facts['n_blocks'] / batch_size:,.1f} steps of {batch_size:,}" if batch_size else ""
    entropy = ", ".join(f"{name} {value:.3f}" for name, value in facts["entropy"].items())
    most = "  ".join(f"{token['text']!r} {token['share']:.2%}" for token in facts["most"])
    least = "  ".join(f"{token['text']!r} {token['n']:,}x" for token in facts["least"])
    unused = f"; {facts['unused']:,} ids never occur in training" if facts["unused"] else ""
    parts = [
        f"{facts['label']}, {facts['tokenizer']} tokenizer with {facts['vocab_size']:,} ids ({facts['licence']})\n"
        f"store {facts['key']} in {facts['path']}",
        aligned(rows, left=(0,)) + sampled,
        f"an epoch: {counted(facts['n_blocks'], 'block')} of {facts['block_size']:,} tokens{steps}\n"
        f"entropy in nats per token: {entropy} (uniform guessing, unigrams, bigrams)",
        f"most frequent: {most}\nleast frequent: {least}{unused}",
    ]
    for number, block in enumerate(facts["blocks"], 1):  # each line behind a bar, so that nothing of it is taken for ours
        lines = "\n".join(f"  | {line}" for line in block.splitlines() or [""])
        parts.append(f"training block {number}, as a run with this seed reads it:\n{lines}")
    return "\n\n".join([*parts, "\n".join(f"warning: {sentence}" for sentence in facts["warnings"]) or "no problems found"])


def evaluation_titles(rows: Sequence[Facts]) -> tuple[str, str]:
    first, contexts = rows[0], " or ".join(str(context) for context in sorted({row["context"] for row in rows}))
    how = f"windows of {contexts} tokens, stride {first['stride']}" if first["stride"] else f"blocks of {contexts} tokens"
    size = f"{counted(first['documents'], 'document')}, {first['bytes']:,} bytes; {'each document by itself, ' if first['rolling'] else ''}"
    return f"{first['text']}, {'all documents' if first['split'] == 'all' else first['split']}", size + how


def evaluated_name(row: Facts, between: str = ", step ") -> str:
    """The run and the step of a checkpoint, or the name of a model without a step."""
    return str(row["run"]) if row["step"] is None else f"{row['run']}{between}{row['step']}"


def evaluation_text(rows: Sequence[Facts], n_worst: int) -> str:
    """A line for each checkpoint, and the documents with the most bits per byte by the mean over the lines."""
    table, worst = [EVALUATED], [["bits/byte", "bytes", "document", "begins with"]]
    for row in rows:
        errors = {name: "" if (error := row[f"{name}_error"]) is None else f"{error:.4f}" for name in ("loss", "bpb", "bpc")}
        loss, bpb, bpc = ((f"{row[name]:.4f}", error) for name, error in errors.items())
        per_unit = [f"{row[f'{name}_perplexity']:,.4f}" if row["rolling"] else "" for name in ("word", "byte")]
        unknown = f"{three_digits(100 * row['unknown'] / row['characters'])} %" if row["unknown"] else ""
        numbers = [f"{row['tokens']:,}", *loss, three_digits(row["perplexity"]), *bpb, *bpc, *per_unit, unknown]
        table.append([row["run"], "" if row["step"] is None else str(row["step"]), *numbers, row["model"]])
    each, sizes = rows[0]["each"], np.array(rows[0]["each"]["bytes"])
    nats = np.mean([np.add(row["each"]["nats"], row["each"]["hidden"]) for row in rows], axis=0)
    bits = nats / math.log(2) / np.maximum(sizes, 1)
    for number in np.argsort(-bits, kind="stable")[:n_worst].tolist():
        name, text = (cut(one_line(each[key][number]), SHOWN, "…") for key in ("document", "begins"))
        worst.append([f"{bits[number]:.4f}", f"{sizes[number]:,}", name, text])
    listed = ["", aligned(worst, left=(2,))] if len(worst) > 1 and len(bits) > 1 else []
    return "\n".join([*evaluation_titles(rows), "", aligned(table, left=(0,)), *listed])
