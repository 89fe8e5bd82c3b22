"""The palette, light and dark: of the page, of SVG files and of PNG files."""

from typing import NamedTuple

from matplotlib.colors import LinearSegmentedColormap


class Palette(NamedTuple):
    """CSS colours."""

    background: str
    surface: str
    text: str
    muted: str
    line: str
    notice: str
    shadow: str
    series: tuple[str, ...]

    @property
    def variables(self) -> dict[str, str]:
        """The colours by the names of their CSS variables."""
        named = self._asdict()
        return named | {f"series-{number}": colour for number, colour in enumerate(named.pop("series"), 1)}


LIGHT = Palette(
    *("#fbfaf8", "#ffffff", "#1c1b19", "#6c6861", "#e5e1d9", "#f4eee0", "#1c1b1926"),
    ("#0b6b80", "#c2571a", "#6f5aa8", "#5c7a1f", "#b03060", "#8a6a00", "#2f62c4", "#77726a"),
)
DARK = Palette(
    *("#151517", "#1c1c1f", "#ece9e3", "#a09b92", "#313135", "#2a261c", "#000000b0"),
    ("#4fb6cc", "#ee9455", "#b3a0ea", "#a6c560", "#f08bb0", "#d9b84a", "#8fb4ff", "#b9b3a8"),
)

COLOUR_MAP = LinearSegmentedColormap.from_list(
    "isometry", ["#08131f", "#0d3b54", "#1d7385", "#6fae9f", "#c9d8b4", "#fbf3dc"]
)
"""Of maps and matrices, from low to high; lightness increases throughout, so that it reads in grey too."""


def palette_css() -> str:
    """The CSS variables of both palettes; the dark one is for screens whose reader prefers it."""
    light, dark = (
        " ".join(f"--{name}: {colour};" for name, colour in palette.variables.items())
        for palette in (LIGHT, DARK)
    )
    return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
