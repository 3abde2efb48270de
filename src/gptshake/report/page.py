"""``report.html``: a study on one page that needs nothing but itself: no scripts, no fonts, no files beside it.

Takes what the terminal says and the pictures as SVG; every text is escaped.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape

from gptshake.report.answer import Rows, best
from gptshake.report.recipe import command, overrides_of
from gptshake.report.terminal import DIFFERENCE_HEAD, difference_rows, table

_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.55 system-ui, sans-serif; color: #1f2328; background: #fff; max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem }
p.below, figcaption { color: #6b7280; margin: .2rem 0 1.2rem }
ul { padding-left: 1.1rem } li { margin: .25rem 0 }
pre { background: #f6f8fa; padding: .7rem .9rem; border-radius: 6px; overflow-x: auto; font-size: .86rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .28rem .8rem .28rem 0; text-align: left; border-bottom: 1px solid #e5e7eb; white-space: nowrap }
th { color: #6b7280; font-weight: 600 } tr.best td { font-weight: 700 } tr.pruned td, tr.stopped td { color: #8b929c }
tr.failed td, tr.diverged td { color: #b3470a }
td.why { white-space: normal }
figure { margin: 1.6rem 0 } figure svg { width: 100%; height: auto }
""".strip()
CAPTIONS = {
    "basin": "The objective along the first axis; green: what cannot be told from the best.",
    "ablate": "Each change against the base, same seeds.",
    "map": "Two axes together; darker is better.",
    "curves": "Learning curves of all trials; grey: not run to the end.",
    "timeline": "What each slot did.",
}


def page(study: Rows, sentences: Sequence[str], pictures: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        study: study.json.
        sentences: the verdict.
        pictures: name -> SVG.
    """
    title = escape(str(study.get("label") or study["name"]))
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="below">study {escape(study["name"])} · {escape(study["state"])} · {escape(study["objective"])}, {escape(study["direction"])}</p>',
        _sentences(sentences),
        *(_figure(name, pictures[name]) for name in CAPTIONS if name in pictures),
        *_table(study),
        *_command(study),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _sentences(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_sentence(text)}</li>' for text in sentences)}</ul>"


def _sentence(text: str) -> str:
    """A sentence; what follows two spaces is for the shell."""
    words, gap, line = text.partition(":  ")
    return f"{escape(words)}:<pre>{escape(line)}</pre>" if gap else escape(text)


def _figure(name: str, svg: str) -> str:
    return f"<figure>{inline(svg, name)}<figcaption>{escape(CAPTIONS[name])}</figcaption></figure>"


def inline(svg: str, name: str) -> str:
    """An SVG file as a part of a page: without its head and metadata, its ids its own, its letters found by readers as ``name``."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body)  # html knows them
    body = re.sub(r"<style.*?</style>", "", body, count=1, flags=re.DOTALL)  # it would speak for the whole page
    body = re.sub(r'\bid="', f'id="{name}-', body).replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(name)}" stroke-linejoin="round"', 1)


def _table(study: Rows) -> list[str]:
    if study.get("ablate"):
        rows = [_row(cells, "") for cells in difference_rows(study)]
        return ["<h2>Paired differences</h2>", _framed(DIFFERENCE_HEAD, rows)]
    head, cells = table(study)
    return ["<h2>Trials</h2>", _framed(head, [_row(row[1:], f"{row[2]}{' best' if row[0] else ''}") for row in cells])] if cells else []


def _framed(head: Sequence[str], rows: Sequence[str]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(cells: Sequence[str], kind: str) -> str:
    *others, last = cells
    return f'<tr class="{escape(kind)}">{"".join(f"<td>{escape(cell)}</td>" for cell in others)}<td class="why">{escape(last)}</td></tr>'


def _command(study: Rows) -> list[str]:
    fixed = "\n".join(study["fixed"]) or "(nothing)"
    parts = ["<h2>The same for all trials</h2>", f"<pre>{escape(fixed)}</pre>"]
    winner = best(study)
    if winner:
        parts += ["<h2>The best trial again</h2>", f"<pre>{escape(command(study, overrides_of(study, winner)))}</pre>"]
    return parts
