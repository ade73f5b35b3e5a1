"""The table of a benchmark: printed as it comes, and kept for JSON."""

import statistics

from benchmarks.contestants import ALL, BARE, OURS

NAMES = [each.name for each in ALL]
OVER_BARE = "× bare"  # the unit of figures that are ratios to the bare socket's


def text_of(value, decimals):
    return "-" if value is None else f"{value:,.{decimals}f}"


class Table:
    """
    Figures of all contestants, a line each.

    figures  list of dicts: what, unit, decimals, runs {contestant: [value, ...]}, median
             {contestant: value}, ratios to the bare socket {contestant: value}, absent
             {contestant: why there is none}, and of a figure with a target: held, relation,
             target, met; of processor times, which are ratios, us {contestant: [value, ...]}. A
             line of text between them is {"note": text}
    """

    def __init__(self):
        self.figures = []
        self._line("", NAMES, "ratio", "target")

    def _line(self, what, cells, ratio="", target=""):
        pairs = zip(cells, NAMES, strict=True)
        cells = " ".join(cell.rjust(max(9, len(name))) for cell, name in pairs)
        print(f"{what:<41} {cells} {ratio:>6}  {target}".rstrip(), flush=True)

    def add(self, what, unit, runs, decimals=0, target=(), absent=()):
        """
        Add a figure.

        runs      {contestant: [value, ...]}, those of one position from neighbouring runs
        target    (what is held against it: a contestant or "ratio", relation, value)
        absent    {contestant: why there is no figure of it}

        Returns what is kept of it in `figures`.
        """
        figure = {"what": what, "unit": unit, "decimals": decimals, "runs": runs}
        figure["median"] = {name: statistics.median(each) for name, each in runs.items()}
        figure["absent"] = dict(absent)
        figure["ratios"] = ratios = {}
        if BARE in runs and all(runs[BARE]) and unit != OVER_BARE:
            for name, each in runs.items():
                pairs = zip(each, runs[BARE], strict=False)
                ratios[name] = statistics.median(value / bare for value, bare in pairs)
        wanted = ""
        if target:
            held, relation, limit = target
            value = ratios[OURS] if held == "ratio" else figure["median"][held]
            met = {"<": value < limit, "<=": value <= limit, ">=": value >= limit}[relation]
            figure.update(held=held, relation=relation, target=limit, met=met)
            of = "ratio " if held == "ratio" else ""
            wanted = f"{of}{relation} {limit:,} {'ok' if met else 'MISSED'}"
        self.figures.append(figure)
        cells = [text_of(figure["median"].get(name), decimals) for name in NAMES]
        ratio = text_of(ratios[OURS], 2) if OURS in ratios else ""
        self._line(f"{what}, {unit}" if unit else what, cells, ratio, wanted)
        return figure

    def note(self, text):
        self.figures.append({"note": text})
        print(text, flush=True)

    def reasons(self):
        """Return why figures are missing, a line each."""
        found = {}
        for figure in self.figures:
            for name, reason in figure.get("absent", {}).items():
                what = figure["what"].removesuffix(", TCP").removesuffix(", TLS")
                found.setdefault((name, reason), {})[what] = True
        return [
            f"{name} {reason}" + (f" ({', '.join(of)})" if len(of) < 3 else "")
            for (name, reason), of in found.items()
        ]
