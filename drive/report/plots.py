"""Curves of logged metrics as inline SVG: no script, no font and no file beside it; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

WIDTH, HEIGHT = 460, 230  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 26  # margins
COLOURS = 6  # classes c0..c5 of the style sheet
SMOOTH_FROM = 40  # points from which a curve is also drawn smoothed
FIRST = ("loss", "pdms_v1_1", "reward", "score", "action_accuracy", "rollout_ade_m", "kl", "entropy", "think_rate", "tokens")
LAST = ("gradient_norm", "learning_rate")


@dataclass(frozen=True)
class Series:
    """One metric over steps; values that are not finite are left out."""

    name: str
    steps: list[float]
    values: list[float]


def metric_series(lines: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    """Name to Series of every number in the lines of metrics.jsonl, in order of first appearance."""
    found: dict[str, Series] = {}
    for line in lines:
        for name, value in line.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if name == "step" or not number or not math.isfinite(value):
                continue
            series = found.setdefault(name, Series(name, [], []))
            series.steps.append(float(line["step"]))
            series.values.append(float(value))
    return found


def metric_groups(series: Mapping[str, Series]) -> dict[str, list[Series]]:
    """Charts: title to curves. Losses share one, `reward/x` stands with `reward`, `val/x` with `x`; every timing has its own."""
    groups: dict[str, list[Series]] = {}
    for name, curve in series.items():
        groups.setdefault(_group(name), []).append(curve)
    names = list(groups)

    def place(name: str) -> tuple[int, int]:
        late = 2 if name.startswith("time/") else int(name in LAST)
        return late, FIRST.index(name) if name in FIRST else len(FIRST) + names.index(name)

    return {name: groups[name] for name in sorted(names, key=place)}


def _group(name: str) -> str:
    bare = name.removeprefix("val/")
    if bare == "loss" or bare.endswith("_loss"):
        return "loss"
    return bare if bare.startswith("time/") else bare.partition("/")[0]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values within [low, high], about `count` of them, at 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def smooth(values: Sequence[float], span: float) -> list[float]:
    """Mean around each point, its weight falling by e within `span` points to both sides, so that the curve does not lag."""
    away = np.arange(-math.ceil(5 * span), math.ceil(5 * span) + 1)
    kernel = np.exp(-np.abs(away) / span)
    reach = len(away) // 2
    padded = np.pad(np.asarray(values, float), reach)
    present = np.pad(np.ones(len(values)), reach)
    return (np.convolve(padded, kernel, "valid") / np.convolve(present, kernel, "valid")).tolist()


def number(value: float) -> str:
    """Three significant figures, without a needless exponent."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def chart(title: str, curves: Sequence[Series]) -> str:
    """A <figure> with one chart: curves with dots where they are short, raw and smoothed over a 25th of them where long."""
    low, high = _range([v for c in curves for v in c.values])
    first, last = min(c.steps[0] for c in curves), max(c.steps[-1] for c in curves)
    last = last if last > first else first + 1.0

    def at(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return x, TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_grid(low, high, first, last, at)]
    for k, curve in enumerate(curves):
        parts.append(_curve(curve, k % COLOURS, at))
    label = escape(f"{title}: {', '.join(c.name for c in curves)} over steps", quote=True)
    keys = [(f'<span class="key c{k % COLOURS}"></span>', escape(c.name), number(c.values[-1])) for k, c in enumerate(curves)]
    legend = "".join(f"<li>{key}{name} <b>{last}</b></li>" for key, name, last in keys)
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{svg}<ul class="legend">{legend}</ul></figure>'


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Bounds with a little air; outliers beyond the 1st and 99th percentile by more than the whole range are cut off."""
    array = np.asarray(values)
    p1, p99 = np.percentile(array, [1, 99])
    low, high = max(array.min(), p1 - (p99 - p1)), min(array.max(), p99 + (p99 - p1))
    air = 0.06 * (high - low) or max(abs(high) * 0.1, 0.1)
    return float(low - (0.0 if low == 0.0 and high > 0.0 else air)), float(high + air)


def _grid(low: float, high: float, first: float, last: float, at) -> str:
    lines = []
    for value in ticks(low, high):
        _, y = at(first, value)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{number(value)}</text>')
    for step in ticks(first, last):
        x, _ = at(step, low)
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{number(step)}</text>')
    return "".join(lines)


def _curve(curve: Series, colour: int, at) -> str:
    points = [at(step, value) for step, value in zip(curve.steps, curve.values)]
    bounded = [(x, min(max(y, TOP), HEIGHT - BOTTOM)) for x, y in points]
    if len(points) < SMOOTH_FROM:
        dots = "".join(f'<circle class="f{colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>' for x, y in bounded)
        return f'<path class="line c{colour}" d="{_path(bounded)}"/>{dots}'
    softened = smooth(curve.values, len(points) / 25)
    line = [at(step, value) for step, value in zip(curve.steps, softened)]
    return f'<path class="raw c{colour}" d="{_path(bounded)}"/><path class="line c{colour}" d="{_path(line)}"/>'


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
