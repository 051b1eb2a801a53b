"""What a person sees of an audit: a table and a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from nas.audit import show

Facts = Mapping[str, Any]


def table(long: Facts, title: str) -> Table:
    """The agreement of each ranking with long training, by the size of tau."""
    heads = ("ranking by", "Kendall tau", "Spearman", f"top {long['top']} found", "params held")
    about = f"{title}: {len(long['designs'])} designs, agreement with "
    about += f"{long['schedule']['epochs']} epochs x {long['seeds']} seeds (95 % intervals)"
    found = Table(title=about, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for head in heads:
        found.add_column(head, no_wrap=True)
    rows = long["rankings"]
    for name in ("brief", *sorted(rows.keys() - {"brief"}, key=lambda name: -_size(rows[name]))):
        row = rows[name]
        found.add_row(
            "brief training" if name == "brief" else name,
            *(show(row[column]) for column in ("kendall", "spearman", "recall", "params_held")),
            style="bold" if name == "brief" else "",
        )
    return found


def of_sample(long: Facts) -> Iterator[str]:
    """The ceiling, the verdict, and what failed."""
    tau = long["rankings"]["brief"]["kendall"]
    if long["ceiling"] is None:
        yield "what the noise of long training allows is not known: it needs --seeds 2"
    else:
        single = long["ceiling"]["single"]
        reached = ""
        if (tau["value"] or 0.0) > 0 and (single["value"] or 0.0) > 0:
            reached = f"; brief training reaches {100 * tau['value'] / single['value']:.0f} % of it"
        yield f"one long training agrees with another at tau {show(single)}{reached}"
    if long["failed"]:
        yield f"left out, since a long training failed: {', '.join(long['failed'])}"
    yield long["verdict"]["text"]


def of_search(brief: Facts) -> Iterator[str]:
    """What the brief trainings say of themselves."""
    count, shared = brief["designs"], brief["first_place"]
    if brief["seed_deviation"] is None:
        yield (
            "each design was trained once, so nothing says how large the noise is and none can be "
            "told from another: search with --seeds 2 or more"
        )
    elif shared > 1:
        yield (
            f"{shared} of {count} designs share the first place: the seeds of a design differ by "
            f"{100 * brief['seed_deviation']:.1f} points, too much to tell them apart"
        )
    else:
        yield f"the first of {count} designs can be told from all others by its seeds"
    if brief["seeds"] is not None and brief["seeds"]["kendall"] is not None:
        between = brief["seeds"]
        yield (
            f"two seeds order the {between['designs']} designs with {between['seeds']} seeds alike "
            f"at Kendall tau {show(between['kendall'])}"
        )
    defined = {
        name: tau["value"]
        for name, tau in brief["rankings"].items()
        if tau is not None and tau["value"] is not None
    }
    if defined:
        ordered = sorted(defined.items(), key=lambda item: -abs(item[1]))
        listed = ", ".join(f"{name} {tau:.2f}" for name, tau in ordered)
        yield f"tau of the brief accuracies with {listed}"


def lines(run: Path, content: Facts) -> Iterator[str]:
    """Under the table of a run."""
    yield from of_search(content["brief"])
    if content["long"] is None:
        yield f"whether longer training agrees: leanfield audit {run}"
    else:
        yield content["long"]["verdict"]["text"]


def _size(row: Facts) -> float:
    tau = row["kendall"]
    return -1.0 if tau is None or tau["value"] is None else abs(tau["value"])
