"""Missing-rate curves as inline SVG: a line and a band per configuration, values on every point."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from cider_platform.report.tables import PERCENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cider_platform.report.model import Configuration, Number, Report

COLOURS, DASHES = 7, 3
_WIDTH, _HEIGHT = 640, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 14, 46
MOST_WITH_BANDS = 6
"""With more curves, a band is shown where its curve is looked at."""


def look(index: int) -> tuple[str, str]:
    """Return the classes of a configuration's colour and dashes; 21 can be told apart."""
    return f"k{index % COLOURS}", f"d{index // COLOURS % DASHES}"


def swatch(index: int) -> str:
    """Return a short piece of a configuration's line."""
    colour, dashes = look(index)
    return (
        f'<svg class="swatch {colour}" viewBox="0 0 34 12" aria-hidden="true">'
        f'<path class="line {dashes}" d="M1 6H33"/></svg>'
    )


def curve_figure(report: Report, metric: str, protocol: str) -> str:
    """Return the figure of a protocol with at least two rates; else nothing."""
    curves = [
        (index, each, _curve(each, metric, protocol))
        for index, each in enumerate(report.configurations)
    ]
    curves = [each for each in curves if len(each[2]) > 1]
    if not curves:
        return ""
    ends = [end for _, _, numbers in curves for number in numbers for end in _ends(number)]
    ticks = nice_ticks(min(ends), max(ends))
    rates = sorted({_rate(number) for _, _, numbers in curves for number in numbers})
    x_of, y_of = _Scale(rates[0], rates[-1], _LEFT, _WIDTH - _RIGHT), _Scale(
        ticks[0], ticks[-1], _HEIGHT - _BOTTOM, _TOP
    )  # fmt: skip
    many = " many" if len(curves) > MOST_WITH_BANDS else ""
    label = f"test {metric} in percent over the missing rate under {protocol}"
    parts = [
        f'<svg class="curves{many}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}; the table below has its values">'
    ]
    for tick in ticks:
        y = f"{y_of(tick):.1f}"
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y}" dy="4" text-anchor="end">{tick:g}</text>')
    last = -math.inf
    for rate in rates:
        if x_of(rate) - last < _NARROWEST_TICK:
            continue
        last, y = x_of(rate), f"{_HEIGHT - _BOTTOM + 18}"
        parts.append(f'<text x="{last:.1f}" y="{y}" text-anchor="middle">{rate:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">missing rate '
        f"({escape(protocol)})</text>"
        f'<text x="14" y="{_HEIGHT / 2 - 14:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {_HEIGHT / 2 - 14:.0f})">{escape(metric)}, percent</text>'
    )
    for index, each, numbers in curves:
        parts.append(_drawn(index, each, numbers, x_of, y_of))
    return "".join([*parts, "</svg>"])


_NARROWEST_TICK = 30


class _Scale:
    """Places values between two ends of an axis."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._span, self._start, self._end = low, (high - low) or 1.0, start, end

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) / self._span * (self._end - self._start)


def _curve(each: Configuration, metric: str, protocol: str) -> list[Number]:
    found = [
        n
        for n in each.numbers
        if n.metric == metric and n.place.protocol == protocol and n.place.rate is not None
    ]
    return sorted(found, key=_rate)


def _rate(number: Number) -> float:
    return number.place.rate or 0.0


def _ends(number: Number) -> tuple[float, float]:
    """Return the ends of a number's band in percent: its interval, or the number itself."""
    interval, mean = number.summary.interval, number.summary.mean
    low, high = (mean, mean) if interval is None else (interval.low, interval.high)
    return PERCENT * low, PERCENT * high


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round values around low and high, equally far apart, at least two."""
    span = max(high - low, 1e-6)
    for exponent in range(math.floor(math.log10(span)) - 1, 9):
        for digit in (1, 2, 5):
            step = digit * 10.0**exponent
            first, last = math.floor(low / step), math.ceil(high / step)
            if last - first < most:
                last = max(last, first + 1)
                return [round(step * count, 9) for count in range(first, last + 1)]
    raise ValueError(f"no ticks from {low} to {high}")


def _drawn(
    index: int, each: Configuration, numbers: Sequence[Number], x_of: _Scale, y_of: _Scale
) -> str:
    colour, dashes = look(index)
    xs = [x_of(_rate(number)) for number in numbers]
    means = [y_of(PERCENT * number.summary.mean) for number in numbers]
    lows = [y_of(_ends(number)[0]) for number in numbers]
    highs = [y_of(_ends(number)[1]) for number in numbers]
    there = [f"{x:.1f} {y:.1f}" for x, y in zip(xs, highs, strict=True)]
    back = [f"{x:.1f} {y:.1f}" for x, y in zip(xs, lows, strict=True)][::-1]
    line = [f"{x:.1f} {y:.1f}" for x, y in zip(xs, means, strict=True)]
    dots = []
    for number, x, y in zip(numbers, xs, means, strict=True):
        said = escape(said_of(each, number))
        dots.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4" data-say="{said}">'
            f"<title>{said}</title></circle>"
        )
    return (
        f'<g class="{colour}" data-c="{each.id}"><path class="band" d="M{"L".join([*there, *back])}'
        f'Z"/><path class="line {dashes}" d="M{"L".join(line)}"/>{"".join(dots)}</g>'
    )


def said_of(each: Configuration, number: Number) -> str:
    """Return what a point says: configuration, condition, mean, interval, seeds."""
    summary = number.summary
    text = f"{each.name}: {number.metric} {PERCENT * summary.mean:.2f} at {number.place}"
    if summary.interval is not None:
        low, high = PERCENT * summary.interval.low, PERCENT * summary.interval.high
        text += f", 95 % interval {low:.2f} to {high:.2f}"
    return f"{text}, {summary.num_seeds} seed{'s' if summary.num_seeds > 1 else ''}"
