"""Numbers of bytes in words."""

UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def in_bytes(size: float) -> str:
    """A number of bytes, to three digits: 11,141,120 -> "10.6 MiB"."""
    for unit, scale in UNITS:
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} bytes"
