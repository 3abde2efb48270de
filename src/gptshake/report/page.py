"""``report.html``: a study on one page that needs nothing but itself: no scripts, no fonts, no files beside it.

Takes what the terminal says and the pictures as SVG; every text is escaped.
"""

from collections.abc import Mapping, Sequence
from html import escape

from gptshake.report.html import document, figure, row, table
from gptshake.report.rerun import command, overrides_of
from gptshake.report.study_stats import Rows, best
from gptshake.report.study_text import DIFFERENCE_HEAD, difference_rows
from gptshake.report.study_text import table as trials

CAPTIONS = {
    "basin": "The objective along the first axis; green: where the best lies.",
    "ablate": "Each change against the base, same seeds.",
    "map": "Two axes together; darker is better.",
    "curves": "Learning curves of all trials; grey: not run to the end.",
    "time": "The best trial of each batch size: at equal tokens, and at equal time.",
    "timeline": "What each slot did.",
}


def page(study: Rows, sentences: Sequence[str], pictures: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        study: study.json.
        sentences: the verdict.
        pictures: name -> SVG.
    """
    title = str(study.get("label") or study["name"])
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="below">study {escape(study["name"])} · {escape(study["state"])} · {escape(study["objective"])}, {escape(study["direction"])}</p>',
        _sentences(sentences),
        *(figure(pictures[name], name, caption) for name, caption in CAPTIONS.items() if name in pictures),
        *_table(study),
        *_command(study),
    ]
    return document(title, parts)


def _sentences(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_sentence(text)}</li>' for text in sentences)}</ul>"


def _sentence(text: str) -> str:
    """A sentence; what follows two spaces is for the shell."""
    words, gap, line = text.partition(":  ")
    return f"{escape(words)}:<pre>{escape(line)}</pre>" if gap else escape(text)


def _table(study: Rows) -> list[str]:
    if study.get("ablate"):
        return ["<h2>Paired differences</h2>", table(DIFFERENCE_HEAD, [row(cells) for cells in difference_rows(study)])]
    head, rows = trials(study)
    return ["<h2>Trials</h2>", table(head, [row(cells[1:], f"{cells[2]}{' best' if cells[0] else ''}") for cells in rows])] if rows else []


def _command(study: Rows) -> list[str]:
    fixed = "\n".join(study["fixed"]) or "(nothing)"
    parts = ["<h2>The same for all trials</h2>", f"<pre>{escape(fixed)}</pre>"]
    winner = best(study)
    if winner:
        parts += ["<h2>The best trial again</h2>", f"<pre>{escape(command(study, overrides_of(study, winner)))}</pre>"]
    return parts
