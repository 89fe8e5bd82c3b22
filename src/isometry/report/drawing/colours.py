"""The page's colours on its two papers, and SVG files that follow the reader's choice between them."""

import re
from html import escape
from typing import NamedTuple


class Ink(NamedTuple):
    """Colours."""

    paper: str
    ink: str
    muted: str
    rule: str
    series: tuple[str, ...]


LIGHT = Ink(
    *("#fbfaf8", "#1c1b19", "#6c6861", "#e5e1d9"),
    ("#0b6b80", "#c2571a", "#6f5aa8", "#5c7a1f", "#b03060", "#8a6a00", "#2f62c4", "#77726a"),
)
DARK = Ink(
    *("#151517", "#ece9e3", "#a09b92", "#313135"),
    ("#4fb6cc", "#ee9455", "#b3a0ea", "#a6c560", "#f08bb0", "#d9b84a", "#8fb4ff", "#b9b3a8"),
)
"""The page's colours (style.css), on its two papers."""


def following(svg: str, words: str) -> str:
    """A whole SVG file whose colours follow the reader's choice of light or dark, with ``words`` to be read aloud."""
    svg = re.sub(r'(<g) id="[^"]*"', r"\1", svg)
    names = (
        "paper",
        "ink",
        "muted",
        "rule",
        *(f"series-{place}" for place in range(1, 1 + len(LIGHT.series))),
    )
    light, dark = ((each.paper, each.ink, each.muted, each.rule, *each.series) for each in (LIGHT, DARK))
    for name, colour in zip(names, light, strict=True):
        svg = svg.replace(colour, f"var(--{name})")

    def said(colours: tuple[str, ...]) -> str:
        return " ".join(f"--{name}: {colour};" for name, colour in zip(names, colours, strict=True))

    style = (
        f"<style>:root {{ {said(light)} }} "
        f"@media (prefers-color-scheme: dark) {{ :root {{ {said(dark)} }} }} "
        "text { font-family: ui-sans-serif, system-ui, sans-serif !important; }</style>"
        '<rect width="100%" height="100%" style="fill: var(--paper)"/>'
    )
    begin = svg.index("<svg")
    end = svg.index(">", begin)
    head = svg[begin:end].replace("<svg", f'<svg role="img" aria-label="{escape(words)}"')
    return f"{svg[:begin]}{head}><title>{escape(words)}</title>{style}{svg[end + 1 :]}"
