"""Parts of a self-contained HTML page. Every text that is not markup of this file goes through `text`."""

from __future__ import annotations

import base64
import html
import re
import unicodedata
from collections.abc import Sequence

ALIGNED = """.aligned{font-size:13px}.aligned .pair{display:inline-block;margin:0 -1px .3em 0;border:1px solid #bbb}
.pair span{display:block;padding:.15em .5em}.pair span:first-child{border-bottom:1px solid #bbb}
.aligned .title{font-weight:bold}
.aligned .sub{background:#ffd9a8;color:#111}.aligned .del{background:#ffc9c9;color:#111}
.aligned .ins{background:#cfe4ff;color:#111}"""  # of `aligned`
STYLE = ALIGNED + """
body{font:15px/1.5 system-ui,sans-serif;max-width:75em;margin:1em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.7em 0;font-size:13px}
td,th{border:1px solid #ccc;padding:.2em .55em;text-align:left;vertical-align:top}
th{background:#f0f2f5}.stripes tr:nth-child(even) td{background:#fafbfc}
td small{color:#555;white-space:nowrap}h2{margin:1.6em 0 .4em;border-bottom:1px solid #ccc}
img{max-width:100%;height:auto}nav a{margin-right:1.2em;white-space:nowrap}
.scroll{overflow-x:auto}.warning{background:#fff3cd;border:1px solid #d9b441;padding:.6em 1em}
.example{border-top:1px solid #ccc;padding:.6em 0}.example audio{width:15em;height:2em;display:block}
.example label{display:inline-block;margin:0 1.2em .4em 0}
.answer{display:flex;gap:1em;align-items:center}.answer p{width:15em;margin:.3em 0;flex:none}
figure{margin:.6em 0}figcaption{color:#555}"""
RATE = re.compile(r"(\S+) (\[[^\]]*\])")  # a number with its interval, which goes onto a line of its own
TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}  # of Unicode's bidi algorithm
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"  # nothing is fetched, ever


def text(value: object) -> str:
    """`value` as text of a page: no character of it is markup.

    Control characters, halves of surrogate pairs and those that turn the direction of what follows are replaced.
    """
    shown = "".join("\ufffd" if char in TURNING or unicodedata.category(char) in ("Cc", "Cs") and char not in "\t\n"
                    else char for char in str(value))
    return html.escape(shown, quote=True)


def page(title: str, sections: Sequence[tuple[str, str]], warnings: Sequence[str]) -> str:
    """A whole page of `sections` (heading, HTML), with a table of contents; `warnings` stand above all."""
    contents = "".join(f'<a href="#s{number}">{text(heading)}</a> '
                       for number, (heading, _) in enumerate(sections))
    body = "".join(f'<h2 id="s{number}">{text(heading)}</h2>\n{inner}\n'
                   for number, (heading, inner) in enumerate(sections))
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            f'<meta name="viewport" content="width=device-width"><title>{text(title)}</title>'
            f"<style>{STYLE}</style></head><body>\n<h1>{text(title)}</h1>\n"
            + "".join(f'<p class="warning">{text(line)}</p>\n' for line in warnings)
            + f"<nav>{contents}</nav>\n{body}</body></html>\n")


def table(lines: Sequence[Sequence[str]]) -> str:
    """A table whose first line is the header."""
    head = "".join(f"<th>{text(cell)}</th>" for cell in lines[0])
    rows = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in line) + "</tr>" for line in lines[1:])
    return f'<div class="scroll"><table class="stripes"><tr>{head}</tr>{rows}</table></div>'


def _cell(cell: str) -> str:
    """A cell, in which the interval behind a number stays in one piece."""
    if found := RATE.fullmatch(cell):
        return f"{text(found[1])} <small>{text(found[2])}</small>"
    return text(cell)


def paragraph(words: str) -> str:
    return f"<p>{text(words)}</p>"


def data_uri(data: bytes, kind: str) -> str:
    """`data` of the MIME type `kind`, written into the page."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture(data: bytes, kind: str, about: str) -> str:
    """A picture with its caption."""
    return (f'<figure><img alt="{text(about)}" src="{data_uri(data, kind)}">'
            f"<figcaption>{text(about)}</figcaption></figure>")


def player(data: bytes, title: str, kind: str = "audio/flac") -> str:
    """A player of sound, with its title."""
    return f'<label>{text(title)} <audio controls preload="none" src="{data_uri(data, kind)}"></audio></label>'


def aligned(pairs: Sequence[tuple[str, str, str]]) -> str:
    """What was said above what was understood, `(kind, said, understood)` each; kinds: equal, sub, del, ins.

    Long texts go on in the next line. The style is `ALIGNED`.
    """
    columns = "".join(f'<span class="pair {kind if kind in ("sub", "del", "ins") else "equal"}">'
                      f"<span>{_word(one)}</span><span>{_word(other)}</span></span>" for kind, one, other in pairs)
    title = '<span class="pair title"><span>said</span><span>understood</span></span>'
    return f'<div class="aligned">{title}{columns}</div>'


def _word(word: str) -> str:
    return text(word) or "&middot;"
