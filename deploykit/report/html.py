"""HTML and SVG without a template language: every text and attribute is escaped where it enters.

`Markup` is text that is markup already; a plain ``str`` is text and gets escaped. A page is one
file: its style stands in it, it holds no script and asks for nothing from anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from deploykit.printable import printable_lines

_VOID = frozenset({"meta", "br", "line", "rect", "circle", "path"})

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

#: Colours of both schemes; the eight of the series differ in lightness as well as in hue.
_STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --panel: #f6f7f9; --text: #1b1f24;
  --quiet: #57606a; --rule: #d5d9de; --grid: #e6e9ed; --accent: #0a5bb5; --warn: #9a3412;
  --s0: #2563a8; --s1: #d9730d; --s2: #2a9d74; --s3: #b83280; --s4: #8a6d1b; --s5: #6d4fc2;
  --s6: #0f8fa9; --s7: #c0392b; --s8: #8b949e; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171c; --panel: #1c2128;
  --text: #e6e9ed; --quiet: #a3acb7; --rule: #3a424d; --grid: #2a313a; --accent: #79b8ff;
  --warn: #ffa657; --s0: #5b9bd9; --s1: #f0964a; --s2: #4cc38a; --s3: #e879b9; --s4: #d1b04f;
  --s5: #a78bfa; --s6: #4cc9e0; --s7: #f47067; --s8: #8b949e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 36px 0 6px; }
p { margin: 4px 0 12px; max-width: 84ch; }
.quiet { color: var(--quiet); }
.warn { color: var(--warn); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 20px 0 8px; padding: 0; list-style: none; }
.tiles li { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px;
  padding: 10px 14px; }
.tiles b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--quiet); font-size: 13px; }
.scroll { overflow: auto; border: 1px solid var(--rule); border-radius: 8px; }
.tall { max-height: 560px; }
.lines { margin: 8px 0; padding: 8px 12px; font-size: 12.5px; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: 12.5px; white-space: nowrap; }
th, td { padding: 5px 8px; text-align: right; font-variant-numeric: tabular-nums;
  border-bottom: 1px solid var(--grid); }
th { background: var(--panel); font-weight: 600; }
thead th { position: sticky; top: 0; border-bottom: 1px solid var(--rule); }
.left { text-align: left; }
tbody th { font-weight: 500; background: none; }
tbody tr:hover { background: var(--panel); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 8px 0; padding: 0;
  list-style: none; font-size: 13px; }
.legend svg { width: 12px; height: 12px; margin-right: 6px; vertical-align: -1px; }
figure { margin: 8px 0 0; overflow-x: auto; }
figcaption { color: var(--quiet); font-size: 13px; }
svg.chart { width: 100%; min-width: 720px; height: auto; display: block; }
svg text { fill: var(--quiet); font-size: 11px; font-family: inherit; }
svg text.name { fill: var(--text); font-size: 12px; font-weight: 600; }
.grid { stroke: var(--grid); stroke-width: 1; }
.axis { stroke: var(--rule); stroke-width: 1; }
.roof { stroke: var(--text); stroke-width: 1.5; fill: none; }
.dash { stroke: var(--quiet); stroke-dasharray: 4 4; fill: none; }
.s0 { fill: var(--s0); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); } .s3 { fill: var(--s3); }
.s4 { fill: var(--s4); } .s5 { fill: var(--s5); } .s6 { fill: var(--s6); } .s7 { fill: var(--s7); }
.s8 { fill: var(--s8); }
circle { stroke: var(--ground); stroke-width: 1; fill-opacity: 0.85; }
summary { cursor: pointer; font-weight: 600; margin: 24px 0 8px; }
@media print { .tall { max-height: none; } }
"""

#: Classes s0 ... s8; the last stands for all that is left.
SERIES = 9


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Content = str | Markup


def element(
    tag: str, *content: Content, attributes: Mapping[str, str | float] | None = None
) -> Markup:
    """One element; content that is no `Markup` is escaped, and so is every attribute.

    Args:
        tag: Its name.
        content: What it holds.
        attributes: Name → text, or a number, which is written with two decimals at most.
    """
    pairs = "".join(
        f' {name}="{_escaped(_attribute(value))}"' for name, value in (attributes or {}).items()
    )
    if tag in _VOID and not content:
        return Markup(f"<{tag}{pairs}/>")
    return Markup(f"<{tag}{pairs}>{joined(content)}</{tag}>")


def joined(parts: Sequence[Content]) -> Markup:
    """Parts one behind the other, those that are no `Markup` escaped."""
    return Markup("".join(p if isinstance(p, Markup) else _escaped(p) for p in parts))


def _escaped(text: str) -> str:
    # Marks that turn the direction of writing would do so in a browser, too.
    return escape(printable_lines(text))


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    left: int = 1,
    tall: bool = False,
) -> Markup:
    """A table in a region that scrolls by itself, and can be reached by keyboard.

    Args:
        header: Names of the columns.
        rows: Cells; the first cell of a row is its header.
        caption: What the table is, for those who do not see it.
        left: How many columns, from the left, hold words.
        tall: Whether the region is of limited height.
    """

    def cell(tag: str, index: int, text: str, scope: str = "") -> Markup:
        attributes = {"class": "left"} if index < left else {}
        return element(tag, text, attributes=attributes | ({"scope": scope} if scope else {}))

    head = element("tr", *(cell("th", i, name, "col") for i, name in enumerate(header)))
    body = [
        element(
            "tr",
            *(
                cell("td", i, text) if i else cell("th", i, text, "row")
                for i, text in enumerate(row)
            ),
        )
        for row in rows
    ]
    whole = element("table", element("thead", head), element("tbody", *body))
    return element(
        "div",
        whole,
        attributes={
            "class": "scroll tall" if tall else "scroll",
            "role": "region",
            "aria-label": caption,
            "tabindex": "0",
        },
    )


def page(title: str, *content: Content) -> str:
    """A whole document that needs nothing but itself."""
    head = element(
        "head",
        element("meta", attributes={"charset": "utf-8"}),
        element(
            "meta",
            attributes={"http-equiv": "Content-Security-Policy", "content": _POLICY},
        ),
        element(
            "meta",
            attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"},
        ),
        element("title", title),
        element("style", Markup(_STYLE)),
    )
    body = element("body", element("main", *content))
    return f"<!doctype html>\n{element('html', head, body, attributes={'lang': 'en'})}\n"


def _attribute(value: str | float) -> str:
    if isinstance(value, str):
        return value
    text = f"{value:.2f}".rstrip("0").rstrip(".") if value != int(value) else str(int(value))
    return "0" if text in ("-0", "") else text
