"""What every page is made of: one head, one style, its tables and figures; every text is escaped.

A page fetches nothing, and its own script is the only one that its browser may run, whatever a run's name or a model's text holds.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape as escape_markup

from gptshake.console import printable

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


def escape(text: str) -> str:
    """A text as HTML that shows it as it is; characters that could command a terminal or turn the direction of writing are written out."""
    return escape_markup(printable(text))


def document(title: str, parts: Sequence[str], style: str = "", script: str = "") -> str:
    """A whole page: its title, the HTML of its body, CSS beside what all pages have, and JavaScript that runs at the end."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{allowed}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title><style>{_STYLE}{style}</style>'
    )
    body = "\n".join([*parts, f"<script>{script}</script>"] if script else parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def table(head: Sequence[str], rows: Sequence[str]) -> str:
    """A table that scrolls by itself if it is wider than the page; its rows are from ``row``."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def row(cells: Sequence[str], kind: str = "") -> str:
    """A row of a table; its last cell may be long. ``kind`` is a word of the style, such as ``failed``."""
    *others, last = cells
    return f'<tr class="{escape(kind)}">{"".join(f"<td>{escape(cell)}</td>" for cell in others)}<td class="why">{escape(last)}</td></tr>'


def figure(svg: str, name: str, caption: str) -> str:
    """A picture with what it shows below it. ``name``, which its ids begin with and readers hear, is unique on the page."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # html knows them
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)  # it would speak for the whole page
    svg = re.sub(r'\bid="', f'id="{name}-', svg).replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(name)}" stroke-linejoin="round"', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
