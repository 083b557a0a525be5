"""Reports as one HTML file that opens offline: the page, tables, maps, and how all of it looks. Pure.

The drawings are SVG written here, not made by a chart library: no script and nothing from elsewhere, which the file
itself forbids (Content-Security-Policy), so a name out of a log can at worst look odd. Every name goes through
`printable` and `html.escape`. They follow the reader's light or dark mode.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from cbmon import __version__
from cbmon.units import printable

MARKER = "<!doctype html>\n<!-- cbmon report -->\n"
"""How such a file begins; only what begins so is ever overwritten by another one."""
WIDTH, LEFT, RIGHT = 960.0, 150.0, 16.0
"""A figure's width and its margins, in units that the browser scales to the page."""
_MAP_ROW = 24.0


def text(words: object, limit: int = 4096) -> str:
    """Words from anywhere, safe within HTML and SVG, in text and in attributes."""
    return html.escape(printable(str(words).replace("\xa0", " "), limit=limit), quote=True)


def page(title: str, sections: Iterable[str]) -> str:
    """A whole file from finished sections."""
    return (
        f'{MARKER}<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{text(title)}</title>'
        f"<style>{_STYLE}</style></head><body><main>\n<h1>{text(title)}</h1>\n"
        + "\n".join(sections)
        + f"\n<footer>cbmon {text(__version__)}. Epochs are counted from 1. A stop is a prefix of what was "
        "measured. After a learning rate that was not recorded the metrics are assumed, not known: each answer "
        "says from where. A log that ends tells nothing of what would have come.</footer>\n"
        "</main></body></html>\n"
    )


def table(rows: Sequence[Sequence[object]], left: Iterable[str] = (), caption: str = "") -> str:
    """A table with its heading as the first row; columns are numbers but those whose titles are in `left`."""
    if not rows:
        return ""
    words = set(left)
    kinds = ["" if str(title) in words else ' class="n"' for title in rows[0]]
    parts = [f"<caption>{text(caption)}</caption>"] if caption else []
    for tag, part in (("th", rows[:1]), ("td", rows[1:])):
        lines = (
            "<tr>"
            + "".join(f"<{tag}{kind}>{text(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))
            + "</tr>"
            for row in part
        )
        around = "thead" if tag == "th" else "tbody"
        parts.append(f"<{around}>{''.join(lines)}</{around}>")
    return f'<div class="wide"><table>{"".join(parts)}</table></div>'


def section(heading: str, *parts: str) -> str:
    """A section with a heading, from finished parts."""
    return f"<section><h2>{text(heading)}</h2>\n{''.join(part for part in parts if part)}</section>"


def words_list(words: Sequence[str], kind: str = "") -> str:
    """Sentences, one below the other."""
    if not words:
        return ""
    name = f' class="{kind}"' if kind else ""
    return f"<ul{name}>{''.join(f'<li>{text(each)}</li>' for each in words)}</ul>"


def heat_map(
    values: Sequence[Sequence[float | None]],
    columns: Sequence[str],
    rows: Sequence[str],
    *,
    titles: tuple[str, str],
    crossed: Sequence[Sequence[bool]] = (),
    caption: str = "",
) -> str:
    """A map of numbers over two axes, darker where they are higher; each tells its value under the mouse.

    Args:
        values: One list a row, None or not finite where there is none.
        columns: What each column is.
        rows: What each row is.
        titles: What the columns and what the rows are.
        crossed: Cells crossed out, for what darkness alone would praise; none if empty.
        caption: What the numbers are.
    """
    if not values or not columns:
        return ""
    told = [value for row in values for value in row if value is not None and math.isfinite(value)]
    low, high = min(told, default=0.0), max(told, default=0.0)
    wide, tall, top = (WIDTH - LEFT - RIGHT) / len(columns), _MAP_ROW, 26.0
    parts = [f'<text class="tick" x="{LEFT - 8:g}" y="16" text-anchor="end">{text(titles[1], 20)}</text>']
    every = math.ceil(len(columns) * 48 / (WIDTH - LEFT - RIGHT))
    for at in range(0, len(columns), every):
        place = f'x="{LEFT + (at + 0.5) * wide:.1f}" y="{top + tall * len(rows) + 18:g}"'
        parts.append(f'<text class="tick" {place} text-anchor="middle">{text(columns[at], 12)}</text>')
    bottom = top + tall * len(rows) + 36
    parts.append(
        f'<text class="tick" x="{WIDTH - RIGHT:g}" y="{bottom:g}" text-anchor="end">{text(titles[0])}</text>'
    )
    for down, (name, line) in enumerate(zip(rows, values, strict=True)):
        y = top + tall * down
        place = f'x="{LEFT - 8:g}" y="{y + tall / 2 + 4:g}" text-anchor="end"'
        parts.append(f'<text class="tick" {place}>{text(name, 20)}</text>')
        for across, value in enumerate(line):
            x, is_known = LEFT + wide * across, value is not None and math.isfinite(value)
            share = (
                0.0 if not is_known or value is None else (value - low) / (high - low) if high > low else 1.0
            )
            is_crossed = bool(crossed) and crossed[down][across]
            words = (
                f"{titles[0]} {columns[across]}, {titles[1]} {name}: {f'{value:.4g}' if is_known else '–'}"
            )
            words += ", crossed out" if is_crossed else ""
            shade = f'class="heat" fill-opacity="{0.08 + 0.92 * share:.3f}"' if is_known else 'class="hole"'
            parts.append(
                f'<rect {shade} x="{x:.1f}" y="{y:g}" width="{max(wide - 1.5, 0.5):.1f}" height="{tall - 1.5:g}">'
                f"<title>{text(words)}</title></rect>"
            )
            if is_crossed:
                ends = f"M{x + 4:.1f} {y + 4:g}L{x + max(wide - 5.5, 4):.1f} {y + tall - 5.5:g}"
                parts.append(f'<path class="cross" d="{ends}"/>')
    return (
        f'<figure><figcaption>{text(caption)}</figcaption><svg viewBox="0 0 {WIDTH:g} {bottom + 8:g}" role="img">'
        f"<desc>{text(caption)}</desc>{''.join(parts)}</svg></figure>"
    )


_LIGHT = {
    **{"back": "#fff", "ink": "#1b1f24", "soft": "#5b6570", "grid": "#e3e7eb", "box": "#f5f7f9"},
    **{"stop": "#c62828", "cut": "#b26a00", "best": "#1b7f3b", "save": "#1f5fbf"},
    **{"c0": "#1f6fb2", "c1": "#b5489a", "c2": "#0f8b8d", "c3": "#7a7a22"},
    **{"c4": "#5a55c7", "c5": "#c4482e", "c6": "#23855b", "c7": "#8a5a2b"},
}
_DARK = {
    **{"back": "#14171a", "ink": "#e6e9ec", "soft": "#9aa4ad", "grid": "#2b3138", "box": "#1d2226"},
    **{"stop": "#ff6b5e", "cut": "#f0a63c", "best": "#5fce86", "save": "#79a9ff"},
    **{"c0": "#64b1ec", "c1": "#e28acb", "c2": "#4fd1d3", "c3": "#cfcf6a"},
    **{"c4": "#a6a2ff", "c5": "#ff8a6e", "c6": "#63cf9d", "c7": "#d9a877"},
}


def _colours(colours: dict[str, str]) -> str:
    return f":root{{{';'.join(f'--{name}:{colour}' for name, colour in colours.items())}}}"


_RULES = """
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:980px;margin:0 auto;padding:24px 20px}
h1{font-size:1.5em;overflow-wrap:anywhere}
h2{font-size:1.15em;margin-top:2em;overflow-wrap:anywhere}
h3{font-size:1em;margin:1.6em 0 .4em}
figure{margin:1em 0}
svg{width:100%;height:auto;font:12px system-ui,sans-serif;fill:var(--ink)}
.wide{overflow-x:auto}
table{border-collapse:collapse;margin:1em 0;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding-bottom:4px}
th,td{padding:3px 14px 3px 0;text-align:left;border-bottom:1px solid var(--grid);white-space:nowrap}
th{color:var(--soft);font-weight:500}
td.n,th.n{text-align:right}
code,pre{font:13px ui-monospace,monospace}
pre{background:var(--box);padding:10px 12px;overflow-x:auto;border-radius:6px}
dt{margin-top:.5em;overflow-wrap:anywhere}
dd{margin:0 0 0 1.5em}
ul{margin:.3em 0;padding-left:1.3em;overflow-wrap:anywhere}
summary{cursor:pointer;color:var(--soft)}
footer{margin-top:3em;color:var(--soft);font-size:.9em}
.warnings{color:var(--cut)}
.calls{color:var(--soft)}
p.bad{color:var(--stop)}
.grid{stroke:var(--grid)}
.axis{stroke:var(--soft)}
.tick,.twinname{fill:var(--soft)}
.title{font-weight:600;font-size:14px}
path.curve,path.twin,path.rate{fill:none;stroke-linejoin:round;stroke-linecap:round}
.curve{stroke:var(--ink);stroke-width:2}
.twin{stroke:var(--soft);stroke-width:1.2}
.rest{stroke-dasharray:2 4}
.curve.rest{stroke:var(--soft);stroke-width:1.6}
line.rest{stroke:var(--soft)}
.rate{stroke-width:2}
.life{stroke-width:5}
.drop{stroke-width:1.4;stroke-dasharray:5 4}
circle.best{fill:none;stroke-width:2.2}
text.bad{fill:var(--stop);font-size:14px}
.mark{stroke:var(--back);stroke-width:1}
.mstop{fill:var(--stop)}
.mlr{fill:var(--cut)}
.mbest{fill:var(--best)}
.mcheckpoint{fill:var(--save)}
.heat{fill:var(--c0)}
.hole{fill:none;stroke:var(--grid)}
.cross{stroke:var(--stop);stroke-width:2.2}
figcaption{font-weight:600}
.hover{fill:var(--ink);fill-opacity:0}
.hover:hover{fill-opacity:.08}
"""
_STYLE = (
    _colours(_LIGHT)
    + f"@media(prefers-color-scheme:dark){{{_colours(_DARK)}}}"
    + _RULES
    + "".join(f".c{at}{{stroke:var(--c{at})}}text.c{at}{{fill:var(--c{at});stroke:none}}" for at in range(8))
)
