"""Numbers as people read them: three significant digits, a true minus sign, units with a space before them."""

from __future__ import annotations

import math

__all__ = ["count", "duration", "grade", "memory", "percent", "short", "signed"]

_MINUS = "\N{MINUS SIGN}"
_THIN = "\N{NARROW NO-BREAK SPACE}"


def short(value: float) -> str:
    """`value` in about three significant digits, a whole number whole: 0.0321, 1.24, 318, 12,400, 3.2e-5."""
    size = abs(value)
    if size < 1e7 and value == int(value):
        return f"{value:,.0f}".replace("-", _MINUS) if size else "0"
    if size >= 1e7 or size < 1e-4:
        mantissa, exponent = f"{value:.1e}".split("e")
        text = f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    elif size >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"
        text = text.rstrip("0") if size < 0.01 else text
    return text.replace("-", _MINUS)


def signed(value: float) -> str:
    """As `short`, with a plus sign where the number is above 0."""
    return f"+{short(value)}" if value > 0 else short(value)


def grade(value: float) -> str:
    """A reward or a taste: two decimals."""
    return f"{value:.2f}".replace("-", _MINUS)


def percent(share: float) -> str:
    """A share of 1 in percent, with one decimal."""
    return f"{share * 100:.1f}{_THIN}%".replace("-", _MINUS)


def count(value: float) -> str:
    """A whole number with separators of thousands."""
    return f"{value:,.0f}".replace("-", _MINUS)


def duration(seconds: float) -> str:
    """Seconds as people say them: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f}{_THIN}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{_THIN}s"
    if whole < 3600:
        return f"{whole // 60}{_THIN}min {whole % 60}{_THIN}s"
    return f"{whole // 3600}{_THIN}h {whole % 3600 // 60}{_THIN}min"


def memory(megabytes: float) -> str:
    """Megabytes, or gigabytes from a thousand on."""
    return f"{megabytes / 1000:.2f}{_THIN}GB" if megabytes >= 1000 else f"{megabytes:.0f}{_THIN}MB"
