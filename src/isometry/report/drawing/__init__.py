"""Charts, as inline SVG and matplotlib figures."""
