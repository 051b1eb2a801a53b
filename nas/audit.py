"""How far the ranking of a run can be trusted, as numbers: audit.json.

    brief(rows, trainings, seed)        after each search, from what its ledger holds
    long(designs, brief, trained, ...)  from a sample that `nas.auditor` has trained for long

Agreement is Kendall's tau, Spearman's correlation and the share of the best that are found
(`nas.agreement`), each with a bootstrap interval over designs. All numbers of a design are of its
networks on the validation split; the brief ones are means over the seeds that it has.

Cost of `brief`: some tenths of a second for MOST designs; of more it takes a sample.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nas.agreement import Interval, bootstrap, ceiling, kendall, partial, spearman, top_recall
from nas.files import storage_errors, write_atomically
from nas.places import noise
from nas.rankings import TRIVIAL, Ranking, trivial
from nas.run import read_record
from nas.study import Training
from nas.table import Row

SCHEMA = 1
LEAST = 5
"""Designs without which no agreement is stated."""
MOST = 150
QUICK, THOROUGH = 100, 1000
"""Rounds of the bootstrap: after a search, after long training."""
TOP = 4
"""The best quarter of a sample counts as the best."""

Facts = dict[str, Any]
Column = Sequence[float | None]


def stratified(values: Sequence[float], count: int, seed: int) -> list[int]:
    """`count` designs over the whole ranking, best first: one at random from each of as many equal
    parts. All of them where there are no more."""
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    if len(order) <= count:
        return order
    random = np.random.default_rng(seed)
    edges = np.linspace(0, len(order), count + 1).round().astype(int)
    return [order[random.integers(low, high)] for low, high in pairwise(edges)]


# ---- after a search ------------------------------------------------------------------------------


def brief(rows: Iterable[Row], trainings: Iterable[Training], seed: int) -> Facts:
    """What the brief trainings say of themselves.

    first_place: designs that cannot be told from the best. seeds: agreement of two seeds on the
    order of the networks that have the most. rankings: tau of each trivial ranking with the brief
    accuracies.
    """
    ranked = [row for row in rows if row.rank is not None]
    reached = _by_seed(trainings)
    found = noise([[*seeds.values()] for seeds in reached.values()])
    chosen = stratified([row.accuracy or 0.0 for row in ranked], MOST, seed)
    accuracies = [ranked[index].accuracy for index in chosen]
    columns = _columns([trivial(ranked[index]) for index in chosen])
    return {
        "designs": len(ranked),
        "seed_deviation": found.deviation if found.freedom else None,
        "freedom": found.freedom,
        "places": len({row.place for row in ranked}),
        "first_place": sum(row.place is not None and row.place[0] == 1 for row in ranked),
        "seeds": _between_seeds(reached, seed),
        "rankings": {
            name: _agreement(kendall, [column, accuracies], seed, QUICK)
            for name, column in columns.items()
        },
    }


def _by_seed(trainings: Iterable[Training]) -> dict[str, dict[int, float]]:
    """Accuracies by network and repeat."""
    reached: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for row in trainings:
        if row.accuracy is not None:
            reached[row.key][row.repeat] = row.accuracy
    return reached


def _between_seeds(reached: Mapping[str, Mapping[int, float]], seed: int) -> Facts | None:
    """tau of one seed with another, mean over all pairs; None for fewer than two seeds."""
    repeats = max((len(seeds) for seeds in reached.values()), default=0)
    if repeats < 2:
        return None
    full = [seeds for seeds in reached.values() if len(seeds) == repeats]
    columns = list(zip(*([seeds[r] for r in sorted(seeds)] for seeds in full), strict=True))
    tau = _agreement(_single, columns, seed, QUICK)
    return {"designs": len(full), "seeds": repeats, "kendall": tau}


# ---- against long training -----------------------------------------------------------------------


def long(
    designs: Sequence[Facts],
    rankings: Mapping[str, Column],
    trained: Sequence[Sequence[float]],
    seed: int = 0,
) -> Facts:
    """How far rankings agree with long training.

    designs: facts of each, which are passed on. rankings: a column each, "brief" among them.
    trained: of each design the accuracies of its long trainings, equally many, at least LEAST
    designs. Raises ValueError for fewer.
    """
    if len(trained) < LEAST:
        raise ValueError(f"{len(trained)} designs were trained for long; {LEAST} are needed")
    truth = [float(np.mean(row)) for row in trained]
    top = max(1, round(len(truth) / TOP))

    def recall(found: Any, best: Any) -> float:
        return top_recall(found, best, top)

    compared: Facts = {}
    for name, column in rankings.items():
        compared[name] = {
            "designs": sum(value is not None for value in column),
            "kendall": _agreement(kendall, [column, truth], seed),
            "spearman": _agreement(spearman, [column, truth], seed),
            "recall": _agreement(recall, [column, truth], seed),
            "params_held": _agreement(partial, [column, truth, rankings["params"]], seed)
            if name != "params"
            else None,
        }
    return {
        "designs": [
            {**facts, "long": list(values)} for facts, values in zip(designs, trained, strict=True)
        ],
        "top": top,
        "rankings": compared,
        "ceiling": _ceiling(trained, seed),
        "verdict": _verdict(rankings, truth, seed),
    }


def _ceiling(trained: Sequence[Sequence[float]], seed: int) -> Facts | None:
    """What the noise of the long trainings leaves; None where there is one each."""
    if len(trained[0]) < 2:
        return None
    whole = ceiling(trained)
    single = _agreement(_single, list(zip(*trained, strict=True)), seed)
    return {"single": single, "mean": _plain(whole.mean), "noiseless": _plain(whole.noiseless)}


def _verdict(rankings: Mapping[str, Column], truth: Sequence[float], seed: int) -> Facts:
    """Whether brief training ranks better than the best trivial ranking, either way round.

    That one is chosen among all, on the same designs, which is in its favour.
    """
    rivals = {}
    for name in TRIVIAL:
        found = _agreement(kendall, [rankings[name], truth], rounds=1)
        if found is not None and found["value"] is not None:
            rivals[name] = found["value"]
    if not rivals:
        return {"rival": None, "told_apart": None, "text": "no trivial ranking orders the sample"}
    rival = max(rivals, key=lambda name: abs(rivals[name]))
    sign = math.copysign(1.0, rivals[rival])

    def difference(own: Any, other: Any, best: Any) -> float:
        return kendall(own, best) - sign * kendall(other, best)

    gain = _agreement(difference, [rankings["brief"], rankings[rival], truth], seed)
    smallest = ", smallest first" if sign < 0 else ""
    by = f"ranking by {rival}{smallest}"
    low, high = (gain["low"], gain["high"]) if gain is not None else (None, None)
    if low is None or high is None:
        apart, text = None, f"brief training orders nothing here, so it is no better than {by}"
    elif low > 0:
        apart, text = True, f"the ranking can be told from {by}, and it is better"
    elif high < 0:
        apart, text = True, f"the ranking can be told from {by}, and it is worse"
    else:
        apart, text = False, f"the ranking cannot be told from {by}"
    if apart is not None:
        tau = kendall(*_complete([rankings["brief"], truth]))
        text += f": tau {tau:.2f} against {abs(rivals[rival]):.2f}, a difference of {show(gain)}"
    return {
        "rival": rival,
        "sign": int(sign),
        "difference": gain,
        "told_apart": apart,
        "text": text,
    }


# ---- the file ------------------------------------------------------------------------------------


def write(folder: Path, after_search: Facts, of_sample: Facts | None = None) -> Facts:
    """Replace audit.json of a run, and give back what it holds."""
    content = {"schema": SCHEMA, "brief": after_search, "long": of_sample}
    with storage_errors(folder):
        write_atomically(folder / "audit.json", json.dumps(content, indent=2).encode() + b"\n")
    return content


def read(folder: Path) -> Facts | None:
    """audit.json of a run, None where it has none (it is not finished, or of an earlier version).

    Raises RunError where `folder` is no run folder.
    """
    read_record(folder)
    file = folder / "audit.json"
    if not file.is_file():
        return None
    content: Facts = json.loads(file.read_bytes())
    return content if content.get("schema") == SCHEMA else None


# ---- small things --------------------------------------------------------------------------------


def show(interval: Mapping[str, float | None] | None) -> str:
    """`0.45 [0.20, 0.63]`, a dash for what is not defined."""
    if interval is None or interval["value"] is None:
        return "-"
    value, low, high = interval["value"], interval["low"], interval["high"]
    if low is None or high is None:
        return f"{value:.2f}"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _single(*columns: Any) -> float:
    return ceiling(np.stack(columns, axis=1)).single


def _columns(rows: Sequence[Ranking]) -> dict[str, Column]:
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _agreement(
    statistic: Any, columns: Sequence[Column], seed: int = 0, rounds: int | None = None
) -> dict[str, float | None] | None:
    """A statistic over the designs that have a value in each column; None for fewer than LEAST."""
    complete = _complete(columns)
    if len(complete[0]) < LEAST:
        return None
    found: Interval = bootstrap(statistic, *complete, rounds=rounds or THOROUGH, seed=seed)
    return {name: _plain(value) for name, value in found._asdict().items()}


def _complete(columns: Sequence[Column]) -> list[list[float]]:
    """The columns without the designs that lack a value in one."""
    rows = [row for row in zip(*columns, strict=True) if None not in row]
    return [[row[i] for row in rows if row[i] is not None] for i in range(len(columns))]


def _plain(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None
