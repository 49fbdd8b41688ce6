"""The few charts of a report as inline SVG: their colours are the page's, so they follow light and dark by themselves.

Every label comes from data and is escaped here. Each chart has a title and a description for who does not see it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from markupsafe import Markup, escape

from raypipe.errors import masked, one_line

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 36
KEY = 220
"""Width of the names of lines, beside them."""

NUM_COLOURS = 6
"""Classes s0 ... s5 of the page's style; lines differ in their dashes as well."""

MAX_POINTS = 500
"""Of one line; a longer one is thinned evenly."""

MAX_LABEL_CHARS = 24

LOG_FROM = 100
"""An axis of positive values that differ by more than this factor is logarithmic."""

Point = tuple[float, float]


def figure(value: float) -> str:
    """A number as an axis shows it."""
    return f"{value:.4g}"


def short(text: object) -> str:
    """A label that fits beside an axis."""
    label = one_line(str(text))
    return label if len(label) <= MAX_LABEL_CHARS else f"{label[: MAX_LABEL_CHARS - 1]}…"


class Charts:
    """Draws the charts of one page; ids are unique within it."""

    def __init__(self) -> None:
        self._ids = count(1)

    def _svg(self, title: str, desc: str, body: Sequence[str], width: int = WIDTH, height: int = HEIGHT) -> Markup:
        number = next(self._ids)
        return Markup(
            f'<svg role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'aria-labelledby="t{number} d{number}"><title id="t{number}">{_safe(title)}</title>'
            f'<desc id="d{number}">{_safe(desc)}</desc>{"".join(body)}</svg>'
        )

    def lines(
        self, title: str, series: Mapping[str, Sequence[Point]], x_label: str, mark: float | None = None
    ) -> Markup:
        """One line each name; points that are no finite number are left out.

        Args:
            mark: x of a vertical line.
        """
        kept = {name: [point for point in points if _finite(point)] for name, points in series.items()}
        kept = {name: _thinned(points) for name, points in kept.items() if points}
        if not kept:
            return Markup("")
        xs = Scale([x for points in kept.values() for x, _ in points], LEFT, WIDTH - RIGHT - KEY)
        ys = Scale([y for points in kept.values() for _, y in points], HEIGHT - BOTTOM, TOP)
        body = [*_axes(xs, ys, x_label)]
        if mark is not None:
            body.append(f'<line class="mark" x1="{xs.at(mark)}" x2="{xs.at(mark)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        told: list[str] = []
        for number, (name, points) in enumerate(kept.items()):
            colour = f"s{number % NUM_COLOURS}"
            path = " ".join(f"{xs.at(x)},{ys.at(y)}" for x, y in points)
            body.append(f'<polyline class="line {colour}" points="{path}"/>')
            if len(points) == 1:
                body.append(
                    f'<circle class="dot {colour}" cx="{xs.at(points[0][0])}" cy="{ys.at(points[0][1])}" r="3"/>'
                )
            y = TOP + 10 + 18 * number
            body.append(f'<line class="line {colour}" x1="{WIDTH - KEY}" x2="{WIDTH - KEY + 26}" y1="{y}" y2="{y}"/>')
            body.append(_text(WIDTH - KEY + 32, y + 4, short(name)))
            told.append(f"{name} from {figure(points[0][1])} to {figure(points[-1][1])}")
        return self._svg(title, "; ".join(told), body)

    def histogram(self, title: str, edges: Sequence[float], counts: Sequence[int], *, large: bool = False) -> Markup:
        """A small one, for a row of a table; a large one has its smallest, middle and largest value below it."""
        width, height, foot = (640, 160, 22) if large else (160, 44, 0)
        step, top = width / max(1, len(counts)), max(counts, default=0) or 1
        body = [
            f'<rect class="bar" x="{i * step:.1f}" y="{height - height * n / top:.1f}" '
            f'width="{max(step - 1, 0.5):.1f}" height="{height * n / top:.1f}"/>'
            for i, n in enumerate(counts)
            if n
        ]
        if large:
            body.append(f'<path class="axis" d="M0,{height}H{width}"/>')
            for value, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
                label = figure(edges[0] + (edges[-1] - edges[0]) * value)
                body.append(_text(width * value, height + 16, label, anchor))
        desc = f"{sum(counts)} values from {figure(edges[0])} to {figure(edges[-1])} in {len(counts)} equal bins"
        return self._svg(title, desc, body, width, height + foot)

    def bars(self, title: str, values: Mapping[str, float], unit: str = "") -> Markup:
        """Lying bars, one each name, with their values."""
        top = max(values.values(), default=0) or 1
        height = 24 * len(values) + 4
        body: list[str] = []
        for number, (name, value) in enumerate(values.items()):
            y = 24 * number + 4
            body.append(_text(170, y + 14, short(name), "end"))
            body.append(f'<rect class="bar" x="178" y="{y}" width="{max(360 * value / top, 1):.1f}" height="18"/>')
            body.append(_text(184 + 360 * value / top, y + 14, f"{figure(value)}{unit}"))
        desc = ", ".join(f"{name} {figure(value)}{unit}" for name, value in values.items())
        return self._svg(title, desc, body, WIDTH, height)

    def heat_map(self, title: str, desc: str, counts: Sequence[Sequence[int]]) -> Markup:
        """Counts as squares, rows downward; empty ones are left out. Shade is each square's share of its row."""
        side = 480 / max(1, len(counts))
        body = [f'<rect class="frame" x="0" y="0" width="{side * len(counts):.1f}" height="{side * len(counts):.1f}"/>']
        for i, row in enumerate(counts):
            whole = sum(row) or 1
            body += [
                f'<rect class="bar" x="{j * side:.1f}" y="{i * side:.1f}" width="{side:.1f}" height="{side:.1f}" '
                f'opacity="{0.15 + 0.85 * n / whole:.2f}"/>'
                for j, n in enumerate(row)
                if n
            ]
        return self._svg(title, desc, body, 482, 482)

    def parallel(self, title: str, desc: str, axes: Mapping[str, Sequence[Any]], best: int | None) -> Markup:
        """Parallel coordinates: one axis each name with a value of each trial; one line each trial.

        Args:
            best: the trial drawn above the others.
        """
        scales = {name: scale_of(values, HEIGHT - BOTTOM - 6, TOP + 14) for name, values in axes.items()}
        width = max(WIDTH, 130 * len(axes))
        gap = (width - 160) / max(1, len(axes) - 1)
        places = {name: 80 + gap * number for number, name in enumerate(axes)}
        body: list[str] = []
        for name, x in places.items():
            body.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + 14}" y2="{HEIGHT - BOTTOM - 6}"/>')
            body.append(_text(x, HEIGHT - 8, short(name), "middle"))
            body += [_text(x + 4, y + 4, short(label)) for y, label in scales[name].ticks]
        num_trials = len(next(iter(axes.values()), ()))
        for trial in [*(i for i in range(num_trials) if i != best), *([] if best is None else [best])]:
            path = " ".join(f"{places[name]:.1f},{scales[name].at(values[trial])}" for name, values in axes.items())
            body.append(f'<polyline class="trial{" best" if trial == best else ""}" points="{path}"/>')
        return self._svg(title, desc, body, width, HEIGHT)

    def dots(self, title: str, xs: Sequence[Any], ys: Sequence[float], y_label: str) -> Markup:
        """A dot each trial: a parameter against the metric."""
        across = scale_of(xs, LEFT, 300)
        upward = Scale(ys, 150, TOP)
        body = [f'<path class="axis" d="M{LEFT},{TOP}V150H300"/>']
        body += [_text(LEFT - 6, y + 4, label, "end") for y, label in upward.ticks]
        body += [_text(x, 168, short(label)[:12], "middle") for x, label in across.ticks]
        body += [
            f'<circle class="dot s0" cx="{across.at(x)}" cy="{upward.at(y)}" r="3.5"/>'
            for x, y in zip(xs, ys, strict=True)
        ]
        return self._svg(
            title, f"{len(ys)} trials, {y_label} from {figure(min(ys))} to {figure(max(ys))}", body, 330, 176
        )


class Scale:
    """Numbers to places along an axis, in proportion, or in that of their logarithms."""

    def __init__(self, values: Sequence[float], start: float, stop: float, *, may_be_log: bool = False) -> None:
        self.low, self.high = min(values), max(values)
        self._is_log = may_be_log and self.low > 0 and self.high / self.low > LOG_FROM
        self._start, self._stop = start, stop

    def at(self, value: float) -> float:
        """The place of a value; halfway where all are one."""
        low, high, value = (math.log(v) if self._is_log else float(v) for v in (self.low, self.high, value))
        span = high / 2 - low / 2  # halves: the difference of two large numbers may be infinite
        share = (value / 2 - low / 2) / span if span > 0 else 0.5
        return round(self._start + (self._stop - self._start) * share, 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Both ends and the middle: place and label."""
        if self.low == self.high:
            return [(self.at(self.low), figure(self.low))]
        middle = math.sqrt(self.low * self.high) if self._is_log else self.low / 2 + self.high / 2
        return [(self.at(value), figure(value)) for value in (self.low, middle, self.high)]


class Steps:
    """Values that are no numbers, evenly along an axis in order of their first appearance."""

    def __init__(self, values: Sequence[Any], start: float, stop: float) -> None:
        self._names = list(dict.fromkeys(map(str, values)))
        self._start, self._stop = start, stop

    def at(self, value: Any) -> float:
        """The place of a value; halfway where all are one."""
        share = self._names.index(str(value)) / (len(self._names) - 1) if len(self._names) > 1 else 0.5
        return round(self._start + (self._stop - self._start) * share, 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Place and name of each value."""
        return [(self.at(name), name) for name in self._names]


def scale_of(values: Sequence[Any], start: float, stop: float) -> Scale | Steps:
    """Whichever of both the values fit."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values):
        return Scale(values, start, stop, may_be_log=True)
    return Steps(values, start, stop)


def _axes(xs: Scale, ys: Scale, x_label: str) -> list[str]:
    foot, end = HEIGHT - BOTTOM, WIDTH - RIGHT - KEY
    body = [f'<path class="axis" d="M{LEFT},{TOP}V{foot}H{end}"/>']
    for y, label in ys.ticks:
        body += [f'<line class="grid" x1="{LEFT}" x2="{end}" y1="{y}" y2="{y}"/>', _text(LEFT - 6, y + 4, label, "end")]
    body += [_text(x, foot + 15, label, "middle") for x, label in xs.ticks]
    return [*body, _text((LEFT + end) / 2, HEIGHT - 5, x_label, "middle")]


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_safe(text)}</text>'


def _safe(text: str) -> Markup:
    return escape(one_line(masked(text)))


def _finite(point: Point) -> bool:
    return all(map(math.isfinite, point))


def _thinned(points: list[Point]) -> list[Point]:
    step = -(-len(points) // MAX_POINTS)
    return points if step == 1 else [*points[:-1:step], points[-1]]
