"""A report as a list of blocks, written as Markdown or as one self-contained page."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Heading(NamedTuple):
    """A heading of level 1 to 3."""

    text: str
    level: int = 2


class Paragraph(NamedTuple):
    """Some sentences."""

    text: str
    strong: bool = False


class Table(NamedTuple):
    """A table; columns of numbers are set to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[str] = frozenset()


class Picture(NamedTuple):
    """A PNG file, and what it shows."""

    path: Path
    caption: str


Block = Heading | Paragraph | Table | Picture


def to_markdown(blocks: Sequence[Block], folder: Path) -> str:
    """The blocks in Markdown, for a file in `folder`; pictures are linked."""
    parts = [_markdown(block, folder) for block in blocks]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block, folder: Path) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {plain(text)}"
        case Paragraph(text, strong):
            return f"**{plain(text)}**" if strong else plain(text)
        case Table(head, rows, numbers):
            rules = ["---:" if name in numbers else "---" for name in head]
            return "\n".join(
                "| "
                + " | ".join(plain(cell).replace("|", "\\|") for cell in row)
                + " |"
                for row in (head, rules, *rows)
            )
        case Picture(path, caption):
            return f"![{plain(caption)}]({path.relative_to(folder).as_posix()})"


def to_html(blocks: Sequence[Block], *, title: str) -> str:
    """The blocks as one page that needs no other file, no network and no script."""
    body = "\n".join(_html(block) for block in blocks)
    return _PAGE.format(title=_escaped(title), style=_STYLE, body=body)


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_escaped(text)}</h{level}>"
        case Paragraph(text, strong):
            kind = ' class="gain"' if strong else ""
            return f"<p{kind}>{_escaped(text)}</p>"
        case Table(head, rows, numbers):
            return _html_table(head, rows, numbers)
        case Picture(path, caption):
            content = base64.b64encode(path.read_bytes()).decode("ascii")
            words = _escaped(caption)
            return (
                f'<figure><img alt="{words}" src="data:image/png;base64,{content}">'
                f"<figcaption>{words}</figcaption></figure>"
            )


def _html_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[str]
) -> str:
    kinds = [' class="number"' if name in numbers else "" for name in head]

    def line(tag: str, cells: Sequence[str]) -> str:
        marked = [
            f"<{tag}{kind}>{_escaped(cell)}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        ]
        return f"<tr>{''.join(marked)}</tr>"

    top = f"<thead>{line('th', head)}</thead>" if any(head) else ""
    body = "\n".join(line("td", row) for row in rows)
    return f'<div class="wide"><table>{top}<tbody>\n{body}\n</tbody></table></div>'


def plain(text: str) -> str:
    """On one line, without what no encoding holds."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _escaped(text: str) -> str:
    return html.escape(plain(text))


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """:root {
  color-scheme: light dark;
  --ink: #1c1e21;
  --soft: #5a5f66;
  --paper: #ffffff;
  --line: #d9dce0;
  --mark: #eef5fb;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e6e3;
    --soft: #a3a7ab;
    --paper: #16181b;
    --line: #383c41;
    --mark: #1c2a36;
  }
}
body {
  margin: 0;
  background: var(--paper);
  color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1, h2, h3 { line-height: 1.25; margin: 2.2em 0 0.6em; }
h1 { font-size: 1.9rem; margin-top: 0.5em; }
h2 { font-size: 1.3rem; border-bottom: 1px solid var(--line); padding-bottom: 0.2em; }
h3 { font-size: 1.05rem; }
p { max-width: 44rem; }
.gain { background: var(--mark); border-left: 4px solid #0072b2; padding: 0.6em 0.9em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92rem; }
th, td { padding: 0.32em 0.8em; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid var(--line); }
td { border-bottom: 1px solid var(--line); overflow-wrap: anywhere; min-width: 5rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1.4em 0; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption { color: var(--soft); font-size: 0.9rem; margin-top: 0.3em; }"""
