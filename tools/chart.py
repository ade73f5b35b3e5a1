"""
Draw docs/bench.png from a run of the benchmark:

    .venv/bin/python -m pip install -r requirements/chart.txt
    ./dev bench --json figures.json
    .venv/bin/python -m tools.chart figures.json

Messages a second, over TCP and over TLS, of everybody who was measured; what is missing is said
in its place.
"""

import io
import json
import sys
from pathlib import Path

from tools.figures import BARE, OURS

try:
    import matplotlib
    from matplotlib.figure import Figure
    from PIL import Image
except ImportError as error:
    sys.exit(f"{error}: .venv/bin/python -m pip install -r requirements/chart.txt")

PLACE = Path(__file__).parent.parent / "docs" / "bench.png"
PANELS = ("QoS 1 publish, one by one", "QoS 1 publish, 16 in flight", "QoS 0 receive")
# of Okabe and Ito: told apart by colour-blind eyes, and in grey
COLOURS = {"TCP": "#0072b2", "TLS": "#e69f00"}
INK, FAINT, GRID = "#222222", "#555555", "#dddddd"
SIZE, DPI = (9.2, 4.3), 150  # inches: as wide as GitHub shows a README, sharp on a fine screen
BAR = 0.38


def figure_of(results, what):
    """Return the figure that is called `what`, or exit."""
    for figure in results["figures"]:
        if figure.get("what") == what:
            return figure
    sys.exit(f"no figure {what!r}: run all of ./dev bench")


def panel(axes, results, what, names):
    """Draw one measure, a pair of bars for each of `names`, the first on top."""
    axes.set_title(what, fontsize=9, color=INK, loc="left")
    axes.set_xscale("log")
    axes.set_xlim(4, 1_000_000)
    axes.set_xticks([10, 100, 1000, 10_000, 100_000], ["10", "100", "1 k", "10 k", "100 k"])
    axes.minorticks_off()
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, labelsize=8, colors=INK)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    figures = {each: figure_of(results, f"{what}, {each}") for each in COLOURS}
    for y, name in enumerate(names):
        absent = {}
        for transport, shift in (("TCP", -BAR / 2), ("TLS", BAR / 2)):
            value = figures[transport]["median"].get(name)
            if value is None:
                absent.setdefault(figures[transport]["absent"][name], []).append(y + shift)
                continue
            axes.barh(y + shift, value, BAR, color=COLOURS[transport])
            text = f"{value:,.0f}"
            axes.text(value * 1.15, y + shift, text, va="center", fontsize=7, color=INK)
        for reason, places in absent.items():
            at = sum(places) / len(places)
            axes.text(4.6, at, reason[:50], va="center", fontsize=7, color=FAINT)


def draw(results):
    """Return the chart as a matplotlib Figure."""
    matplotlib.rcParams["font.family"] = "DejaVu Sans"  # it comes with matplotlib
    versions = results["versions"]
    names = [OURS, *versions, BARE]
    chart = Figure(figsize=SIZE, dpi=DPI, facecolor="white", layout="constrained")
    chart.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    panels = chart.subplots(1, len(PANELS), sharey=True)
    for axes, what in zip(panels, PANELS, strict=True):
        panel(axes, results, what, names)
    labels = [f"{name} {versions[name]}" if name in versions else name for name in names]
    labels[-1] = "a bare socket"
    panels[0].set_yticks(range(len(names)), labels)
    panels[0].get_yticklabels()[0].set_fontweight("bold")
    title = "Messages a second, 100 bytes each, on loopback (logarithmic; higher is better)"
    chart.suptitle(title, fontsize=10.5, color=INK, x=0.01, ha="left")
    handles = [matplotlib.patches.Patch(color=COLOURS[each], label=each) for each in COLOURS]
    chart.legend(handles=handles, loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    where = "{interpreter}; {broker}; {machine}; {date}".format(**results)
    chart.text(0.01, 0.015, where, fontsize=6.5, color=FAINT)
    return chart


def main(path):
    with open(path) as file:
        chart = draw(json.load(file))
    drawn = io.BytesIO()
    chart.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(64).save(PLACE, optimize=True)
    print(f"{PLACE.relative_to(PLACE.parents[1])}  {PLACE.stat().st_size:,} B")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    main(sys.argv[1])
