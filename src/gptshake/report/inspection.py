"""What a model will see of a token store, for the terminal and as a picture: garbage shows in seconds.

Takes the facts of ``data.inspection.inspect`` (plain values); gives text, and a figure of token frequencies and document lengths.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gptshake.estimate.words import counted, short_count
from gptshake.report.frame import BLUE, GREY, ORANGE, VERMILION, caption, count_axis, heading, look, save
from gptshake.report.tables import aligned

Facts = Mapping[str, Any]
_COLOURS = {"train": BLUE, "val": ORANGE, "test": VERMILION}


def text(facts: Facts, batch_size: int | None) -> str:
    """All of it but the picture, warnings last, where the eye is.

    Args:
        facts: of the store.
        batch_size: sequences per optimizer step, for the steps of an epoch; None if a run decides it.
    """
    parts = [_head(facts), _table(facts), _numbers(facts, batch_size), _tokens(facts), *_blocks(facts), _verdict(facts)]
    return "\n\n".join(parts)


def draw(facts: Facts, folder: Path) -> list[Path]:
    """Write ``tokens.png`` and ``tokens.svg``; gives their paths."""
    with look():
        return save(figure(facts), folder, "tokens")


def figure(facts: Facts) -> Figure:
    """Token frequencies by rank (a straight line is Zipf's law), and how long the documents are."""
    picture = Figure(figsize=(8, 4.2))
    left, right = picture.subplots(1, 2)
    picture.subplots_adjust(left=0.085, right=0.98, top=0.79, bottom=0.13, wspace=0.22)
    train = facts["splits"][0]
    heading(
        picture,
        f"{facts['label']}  ·  {facts['tokenizer']}, {facts['vocab_size']:,} ids",
        f"{short_count(train['n_tokens'])} training tokens  ·  {counted(train['n_documents'], 'document')}  ·  {train['bytes_per_token']:.3g} bytes per token",
    )
    _draw_frequencies(left, facts)
    _draw_lengths(right, facts["lengths"])
    return picture


def _draw_frequencies(axes: Axes, facts: Facts) -> None:
    found = np.asarray(facts["frequencies"], float)
    share = found / found.sum()
    axes.loglog(np.arange(1, len(share) + 1), share, color=BLUE, linewidth=1.6)
    axes.axhline(1 / facts["vocab_size"], color=GREY, linewidth=0.8, linestyle=":")
    axes.annotate("if all were equal", (1, 1 / facts["vocab_size"]), xytext=(2, 3), textcoords="offset points", size=8, color=GREY)
    for n, (place, token) in enumerate(list(enumerate(facts["most"], 1))[::4]):  # neighbours' names would lie over each other
        axes.annotate(
            repr(token["text"]), (place, token["share"]), xytext=(4, 4 + 11 * (n % 2)), textcoords="offset points", size=8, parse_math=False
        )
    axes.set_ylim(top=4 * share[0])
    caption(axes, "share of the training tokens, by rank")
    axes.set_xlabel("rank of the token")


def _draw_lengths(axes: Axes, lengths: Mapping[str, Sequence[int]]) -> None:
    known = {name: np.maximum(values, 1) for name, values in lengths.items() if values}
    ends = [int(end) for values in known.values() for end in (values.min(), values.max())]
    edges = np.geomspace(min(ends) / 1.5, 1.5 * max(ends), 31).tolist()
    for name, values in known.items():
        axes.hist(values, edges, weights=np.full(len(values), 1 / len(values)), histtype="step", color=_COLOURS[name], label=name)
    axes.set_xscale("log")
    axes.set_ylim(top=1.2 * axes.get_ylim()[1])  # room above the bars for the legend
    axes.legend(loc="upper center", ncols=len(known), fontsize=9)
    caption(axes, "share of the documents, by length")
    axes.set_xlabel("tokens of a document")
    count_axis(axes)


def _head(facts: Facts) -> str:
    return (
        f"{facts['label']}, {facts['tokenizer']} tokenizer with {facts['vocab_size']:,} ids ({facts['licence']})\n"
        f"store {facts['key']} in {facts['path']}"
    )


def _table(facts: Facts) -> str:
    head = ["split", "documents", "tokens", "characters", "bytes", "bytes/token", "unknown"]
    rows = [
        [
            split["name"],
            *(f"{split[key]:,}" for key in ("n_documents", "n_tokens", "n_characters", "n_bytes")),
            f"{split['bytes_per_token']:.3f}",
            f"{split['unknown']:.3%}",
        ]
        for split in facts["splits"]
    ]
    sampled = f"\n(frequencies: of {short_count(facts['sampled'])} tokens spread over a split)" if facts["sampled"] else ""
    return aligned([head, *rows], left=(0,)) + sampled


def _numbers(facts: Facts, batch_size: int | None) -> str:
    steps = f" = {facts['n_blocks'] / batch_size:,.1f} steps of {batch_size:,}" if batch_size else ""
    entropy = ", ".join(f"{name} {value:.3f}" for name, value in facts["entropy"].items())
    return (
        f"an epoch: {counted(facts['n_blocks'], 'block')} of {facts['block_size']:,} tokens{steps}\n"
        f"entropy in nats per token: {entropy} (what a model that knows nothing, frequencies, one token of context would reach)"
    )


def _tokens(facts: Facts) -> str:
    most = "  ".join(f"{token['text']!r} {token['share']:.2%}" for token in facts["most"])
    least = "  ".join(f"{token['text']!r} {token['n']:,}x" for token in facts["least"])
    unused = f"; {facts['unused']:,} ids never occur in training" if facts["unused"] else ""
    return f"most frequent: {most}\nleast frequent: {least}{unused}"


def _blocks(facts: Facts) -> list[str]:
    """The first training blocks as text, each line behind a bar, so that nothing of it is taken for ours."""
    blocks = []
    for number, block in enumerate(facts["blocks"], 1):
        lines = "\n".join(f"  | {line}" for line in block.splitlines() or [""])
        blocks.append(f"training block {number}, as a run with this seed reads it:\n{lines}")
    return blocks


def _verdict(facts: Facts) -> str:
    if not facts["warnings"]:
        return "no problems found"
    return "\n".join(f"warning: {sentence}" for sentence in facts["warnings"])
