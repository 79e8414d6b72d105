"""Curves as an SVG picture: a few lines of text, no library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT, MARGIN = 640, 240, 48
COLOURS = ("#1f6feb", "#d29922", "#2da44e", "#cf222e")
FILLED = 0.8
"""Of the height, by a curve's highest point."""


class Curve(NamedTuple):
    """Points by rising x, each curve to its own scale from zero; `name` says what and in what."""

    name: str
    points: Sequence[tuple[float, float]]


def picture(curves: Sequence[Curve], *, along: str) -> str:
    """Return the curves with their names and last values; `along` says what x is, at its end."""
    top = MARGIN + 16 * max(0, len(curves) - 2)
    height = HEIGHT + top - MARGIN
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="sans-serif" font-size="11">'
        ),
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        (
            f'<path d="M{MARGIN} {top}V{height - MARGIN}H{WIDTH - MARGIN}" fill="none" '
            'stroke="#888"/>'
        ),
    ]
    for place, (curve, colour) in enumerate(zip(curves, COLOURS, strict=False)):
        lines.append(_line(curve.points, colour, top=top, height=height))
        highest, last = max(y for _, y in curve.points), curve.points[-1][1]
        text = f"{curve.name}: {last:.4g} at the end, {highest:.4g} at most"
        lines.append(_words(MARGIN, 20 + 16 * place, text, colour))
    lines += [
        _words(WIDTH - MARGIN - 90, height - 24, along, "#333"),
        _words(MARGIN - 14, height - MARGIN + 4, "0", "#333"),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _line(points: Sequence[tuple[float, float]], colour: str, *, top: int, height: int) -> str:
    most_x, most_y = points[-1][0] or 1.0, max(y for _, y in points) / FILLED or 1.0
    place = [
        f"{MARGIN + (WIDTH - 2 * MARGIN) * x / most_x:.1f},"
        f"{height - MARGIN - (height - MARGIN - top) * y / most_y:.1f}"
        for x, y in points
    ]
    return (
        f'<polyline points="{" ".join(place)}" fill="none" stroke="{colour}" stroke-width="1.2"/>'
    )


def _words(x: int, y: int, text: str, colour: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}">{text}</text>'
