"""Kendall's tau of schedules over the seconds that they take, with the ceiling and the best ranking
without training, from the rows of `python -m benchmarks ranking`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BLUE, ORANGE, GREY = "#0b5fa5", "#e08214", "#666666"


def draw(rows: Sequence[Mapping[str, Any]], part: Mapping[str, Any], path: Path) -> None:
    """rows: of one half and budget, by schedule and number of seeds. part: the agreement there."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.8), layout="constrained")
    lines = {
        name: sorted((row for row in rows if row["schedule"] == name), key=lambda r: r["seeds"])
        for name in dict.fromkeys(row["schedule"] for row in rows)
    }
    for number, name in enumerate(sorted(lines, key=lambda n: -lines[n][0]["tau"]), 1):
        seconds, taus = zip(*((row["seconds"], row["tau"]) for row in lines[name]), strict=True)
        colour = ORANGE if name == "brief" else BLUE
        label = f"{number}  {name} (the default)" if name == "brief" else f"{number}  {name}"
        axes.plot(seconds, taus, "o-", color=colour, markersize=5, linewidth=1.2, label=label)
        axes.annotate(
            str(number),
            (seconds[0], taus[0]),
            xytext=(-5, 4),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=colour,
        )
    axes.legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, handlelength=0
    )
    best = abs(part["rivals"][part["best_rival"]].value)
    for height, text in (
        (part["ceiling"]["single"], "one long training with another"),
        (best, f"{part['best_rival'].replace('_', ' ')}, without training"),
    ):
        axes.axhline(height, color=GREY, linewidth=0.9, linestyle="--")
        axes.annotate(
            text,
            (0.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=8,
            color=GREY,
        )
    axes.set_xscale("log")
    ticks = [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50) if tick <= 1.5 * axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("seconds of one core for a design (dots of a line: 1, 2, 3 seeds)")
    axes.set_ylabel("Kendall's tau with long training")
    axes.set_title(
        f"{part['designs']} designs of half {part['half']} at {part['budget']:,} parameters",
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(path, dpi=150, metadata=metadata)
    plt.close(figure)
