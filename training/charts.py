"""Curves as SVG pictures for a page: drawn by matplotlib, coloured by the page, so that they follow light and dark."""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from training.markup import Markup
from training.metrics import Calibration, Curve
from transforms.records import InputError

SERIES = 8
"""Colours that a page has for curves: `--series-0` and on."""

_INK, _GRID = "#010101", "#020202"
_COLOURS = [f"#0304{i:02x}" for i in range(SERIES)]
"""Stand-ins that are replaced by the page's own."""

_LEAST_RATE = 1e-4


def roc(curves: Sequence[Curve], is_logarithmic: bool = False) -> Markup:
    """Detection against false alarms; logarithmic, it shows the few false alarms that a person can live with."""

    def draw(axes: Any) -> None:
        for curve, colour in zip(curves, _COLOURS, strict=False):
            x = [max(rate, _LEAST_RATE) for rate in curve.x] if is_logarithmic else curve.x
            axes.plot(x, curve.y, color=colour)
        if is_logarithmic:
            axes.set_xscale("log")
            axes.set_xlim(_LEAST_RATE, 1)
            axes.set_xticks([1e-4, 1e-3, 1e-2, 1e-1, 1], ["0.01 %", "0.1 %", "1 %", "10 %", "100 %"])
            axes.minorticks_off()
        else:
            axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":")
            axes.set_xlim(-0.01, 1.01)
        _label(axes, "false-alarm rate", "detection rate")

    return _picture(f"roc{int(is_logarithmic)}", "Detection rate against false-alarm rate", draw)


def precision_recall(curves: Sequence[Curve]) -> Markup:
    """Precision against recall."""

    def draw(axes: Any) -> None:
        for curve, colour in zip(curves, _COLOURS, strict=False):
            axes.plot(curve.x, curve.y, color=colour)
        axes.set_xlim(-0.01, 1.01)
        _label(axes, "recall", "precision")

    return _picture("pr", "Precision against recall", draw)


def calibration(stated: Calibration) -> Markup:
    """What came true against what was stated."""
    points = [(one.mean, one.observed) for one in stated.bins if one.rows]

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":")
        axes.plot(*zip(*points, strict=True), color=_COLOURS[0], marker="o", markersize=4)
        axes.set_xlim(-0.01, 1.01)
        _label(axes, "probability stated", "part that came true")

    return _picture("calibration", "What came true against the probability stated", draw)


def learning(points: Sequence[tuple[int, float, float]]) -> Markup:
    """Accuracy (first colour) and macro F1 (second) against rows to learn from."""
    rows, accuracy, macro_f1 = zip(*points, strict=True)

    def draw(axes: Any) -> None:
        axes.plot(rows, accuracy, color=_COLOURS[0], marker="o", markersize=4)
        axes.plot(rows, macro_f1, color=_COLOURS[1], marker="o", markersize=4)
        axes.set_xlim(0, max(rows) * 1.05)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel("rows to learn from")

    return _picture("learning", "Accuracy and macro F1 against rows to learn from", draw)


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_ylim(-0.01, 1.02)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _picture(name: str, what: str, draw: Callable[[Any], None]) -> Markup:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("the report needs matplotlib; pip install 'flowbeam[train]'") from error
    look = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "axes.edgecolor": _GRID,
        "axes.labelcolor": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.use_mathtext": False,
        "grid.color": _GRID,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.8,
        "text.color": _INK,
        "text.parse_math": False,
        "xtick.color": _GRID,
        "ytick.color": _GRID,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
        "font.size": 9,
    }
    drawn = io.StringIO()
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(3.6, 2.8), layout="constrained")
        axes = figure.add_subplot()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        draw(axes)
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _in_page(drawn.getvalue(), name, what)


def _in_page(svg: str, name: str, what: str) -> Markup:
    """The picture without what makes it a file, with ids of its own and the page's colours and fonts."""
    svg = svg[svg.index("<svg") :].replace("xlink:href=", "href=")
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg [^>]*?viewBox", f'<svg role="img" aria-label="{what}" viewBox', svg, count=1)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(
        r"font-family: [^;\"]*;? ?|font: ([0-9.]+px) [^;\"]*", lambda m: f"font-size: {m[1]}" if m[1] else "", svg
    )
    for stand_in, own in ((_INK, "ink"), (_GRID, "grid"), *((c, f"series-{i}") for i, c in enumerate(_COLOURS))):
        svg = svg.replace(stand_in, f"var(--{own})")
    return Markup(re.sub(r"\n\s*", "\n", svg))
