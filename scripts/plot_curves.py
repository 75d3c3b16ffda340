"""Draw an experiment: the validation metric against samples, one panel a workload, a dot at every hit.

python scripts/plot_curves.py results/demo docs/demo.svg
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from runner.errors import UserError
from runner.tables import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def main() -> int:
    """Write the picture; 2 for a folder that holds nothing to draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, help="results/<name>")
    parser.add_argument("picture", type=Path, help="file to write: .svg, .png or .pdf")
    arguments = parser.parse_args()
    try:
        cells, evals = load(arguments.experiment)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    draw(cells, evals, arguments.picture)
    print(f"wrote {arguments.picture}")
    return 0


def draw(cells: pd.DataFrame, evals: pd.DataFrame, picture: Path) -> None:
    """One panel a workload, one colour an algorithm, one line a study."""
    import matplotlib

    matplotlib.use("Agg")
    # Words stay words in the SVG, and two drawings of one table are the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "curves", "font.size": 9})
    import matplotlib.pyplot as plt

    workloads = sorted(cells["workload"].unique())
    labels = sorted(cells["label"].unique())
    colour = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    columns = min(2, len(workloads))
    rows_of_panels = -(-len(workloads) // columns)
    size = (4.2 * columns, 2.6 * rows_of_panels + 0.4)
    figure, axes = plt.subplots(rows_of_panels, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(workloads) :]:
        axis.set_axis_off()
    for axis, workload in zip(axes.flat, workloads, strict=False):
        of = cells["workload"] == workload
        rows = [dict(row) for _, row in cells.loc[of].iterrows()]
        panel(axis, rows, evals.loc[evals["workload"] == workload], colour)
        axis.set_title(workload)
    keys = [plt.Line2D([], [], color=colour[label], label=label) for label in labels]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(labels), frameon=False)
    undated: dict[str, Any] = {"metadata": {"Date": None}} if picture.suffix == ".svg" else {}
    figure.savefig(picture, dpi=150, **undated)


def panel(axis: Axes, cells: list[dict[Any, Any]], evals: pd.DataFrame, colour: dict[str, str]) -> None:
    """Curves, hits and the target of one workload."""
    metric, target = cells[0]["metric"], cells[0]["target"]
    for cell in cells:
        curve = evals.loc[evals["id"] == cell["id"]]
        axis.plot(
            curve["samples"], curve[f"validation/{metric}"], color=colour[cell["label"]], lw=1, alpha=0.7
        )
        if cell["hit"]:
            axis.plot(cell["samples_to_target"], list(curve[f"validation/{metric}"])[-1], "o", ms=4,
                      color=colour[cell["label"]])  # fmt: skip
    if target is not None and math.isfinite(target):
        axis.axhline(target, color="0.4", lw=0.8, ls="--")
        axis.set_ylim(*_window(list(evals[f"validation/{metric}"]), target, cells[0]["minimize"]))
    axis.set_xlabel("samples (gradient equivalents)")
    axis.set_ylabel(f"validation {metric}")
    axis.spines[["top", "right"]].set_visible(False)


def _window(values: list[float], target: float, minimize: bool) -> tuple[float, float]:
    """The range around the target where runs are told apart; the first evaluations lie outside."""
    if minimize:
        return min(*values, target) * 0.9, target * 3
    top, usual = max(*values, target), sorted(values)[len(values) // 3]
    bottom = min(max(usual, target - 0.4 * abs(target)), target - 0.06 * abs(target))
    return bottom, top + 0.1 * (top - target) + 0.002 * abs(target)


if __name__ == "__main__":
    sys.exit(main())
