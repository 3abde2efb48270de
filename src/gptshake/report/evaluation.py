"""What ``task=evaluate`` prints: the text, a line for each checkpoint, and the documents with the most bits per byte."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptshake.console import aligned, cut, one_line
from gptshake.estimate.formatting import counted, three_digits

HEAD = ["run", "step", "tokens", "loss", "±", "perplexity", "bits/byte", "±", "bits/char", "±", "word ppl.", "byte ppl.", "unknown", ""]
SHOWN = 60  # columns of a document's name, and of its beginning
Rows = Sequence[Mapping[str, Any]]


def titles(rows: Rows) -> tuple[str, str]:
    """Which text, and how it was read, in a line each."""
    first, contexts = rows[0], " or ".join(str(context) for context in sorted({row["context"] for row in rows}))
    how = f"windows of {contexts} tokens, stride {first['stride']}" if first["stride"] else f"blocks of {contexts} tokens"
    size = f"{counted(first['documents'], 'document')}, {first['bytes']:,} bytes; {'each document by itself, ' if first['rolling'] else ''}"
    return f"{first['text']}, {'all documents' if first['split'] == 'all' else first['split']}", size + how


def error_text(error: float | None) -> str:
    return "" if error is None else f"{error:.4f}"


def evaluation_text(rows: Rows, n_worst: int) -> str:
    """The table, and the worst documents by the mean over its lines."""
    table, worst = [HEAD], [["bits/byte", "bytes", "document", "begins with"]]
    for row in rows:
        loss, bpb, bpc = ((f"{row[name]:.4f}", error_text(row[f"{name}_error"])) for name in ("loss", "bpb", "bpc"))
        per_unit = [f"{row[f'{name}_perplexity']:,.4f}" if row["rolling"] else "" for name in ("word", "byte")]
        unknown = f"{100 * row['unknown'] / row['characters']:.2g} %" if row["unknown"] else ""
        numbers = [f"{row['tokens']:,}", *loss, three_digits(row["perplexity"]), *bpb, *bpc, *per_unit, unknown]
        table.append([row["run"], str(row["step"]), *numbers, row["model"]])
    each, sizes = rows[0]["each"], np.array(rows[0]["each"]["bytes"])
    nats = np.mean([np.add(row["each"]["nats"], row["each"]["hidden"]) for row in rows], axis=0)
    bits = nats / math.log(2) / np.maximum(sizes, 1)
    for number in np.argsort(-bits, kind="stable")[:n_worst].tolist():
        name, text = (cut(one_line(each[key][number]), SHOWN, "…") for key in ("document", "begins"))
        worst.append([f"{bits[number]:.4f}", f"{sizes[number]:,}", name, text])
    return "\n".join(
        [*titles(rows), "", aligned(table, left=(0,)), *(["", aligned(worst, left=(2,))] if len(worst) > 1 and len(bits) > 1 else [])]
    )
