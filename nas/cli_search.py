"""The commands around a run: search, show, export."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

Json = Annotated[bool, Option("--json", help="one JSON object on standard output")]
Names = Annotated[list[str] | None, Option(help="operators or designs; commas or repeats")]
Run = Annotated[Path, Argument(metavar="RUN", help="a run folder")]


def _names(given: list[str] | None) -> tuple[str, ...]:
    """`A,B` and `A` `B` are the same; commas inside brackets belong to the design."""
    from spaces.design import split_outside_brackets

    words = (word.strip() for text in given or () for word in split_outside_brackets(text, ","))
    return tuple(word for word in words if word)


def search(
    data: Annotated[
        str | None, Option(help="digits, hard-digits, FILE.npz, a folder; see the README")
    ] = None,
    max_params: Annotated[str | None, Option(help="parameters, e.g. 50k")] = None,
    max_mults: Annotated[str | None, Option(help="multiplications an image, e.g. 10M")] = None,
    max_traffic: Annotated[str | None, Option(help="bytes moved an image, e.g. 2MB")] = None,
    max_latency: Annotated[str | None, Option(help="measured time an image, e.g. 2ms")] = None,
    deploy: Annotated[
        str | None, Option(help="the network the limits hold for, e.g. 3x224x224:1000")
    ] = None,
    trials: Annotated[int | None, Option(min=1, help="designs to train (24)")] = None,
    finalists: Annotated[int | None, Option(min=1, help="leaders trained again (5)")] = None,
    seeds: Annotated[int | None, Option(min=1, help="seeds of finalists and known blocks")] = None,
    epochs: Annotated[int | None, Option(min=1, help="epochs of the brief training")] = None,
    vocabulary: Annotated[
        list[str] | None, Option(help="operators to compose, e.g. LEAN,SIC,DW,PW, or all")
    ] = None,
    include: Names = None,
    exclude: Names = None,
    rival: Annotated[list[str] | None, Option(help="your own block, package.module:Block")] = None,
    allow_incomplete: Annotated[
        bool, Option("--allow-incomplete", help="try designs with an incomplete field too")
    ] = False,
    objectives: Annotated[
        list[str] | None, Option(help="accuracy and costs: params, mults, traffic, latency")
    ] = None,
    early_stopping: Annotated[
        bool, Option("--early-stopping/--no-early-stopping", help="end poor trainings early")
    ] = True,
    sampler: Annotated[str | None, Option(help="model, tpe, nsga2, gp or random")] = None,
    workers: Annotated[int | None, Option(min=1, help="processes that train side by side")] = None,
    threads: Annotated[int | None, Option(min=1, help="threads of each training (1)")] = None,
    executor: Annotated[
        str | None, Option(help="in-process, processes or dask:tcp://HOST:8786")
    ] = None,
    trial_timeout: Annotated[
        float | None, Option(help="seconds after which a training has failed")
    ] = None,
    per_gpu: Annotated[int | None, Option(min=1, help="workers on each GPU of this host")] = None,
    storage: Annotated[
        str | None, Option(help="share a study: postgresql://USER@HOST/DATABASE")
    ] = None,
    study: Annotated[str | None, Option(help="name of the shared study (leanfield)")] = None,
    seed: Annotated[int | None, Option(min=0, help="settles proposals and trainings (0)")] = None,
    out: Annotated[Path | None, Option(help="the new run folder")] = None,
    resume: Annotated[Path | None, Option(help="go on with this run folder")] = None,
    as_json: Json = False,
) -> None:
    """Find the block that is best under a budget, beside the known ones."""
    from nas.limits import Limits
    from nas.run import settings

    asked = {
        "data": data,
        "max_params": max_params,
        "max_mults": max_mults,
        "max_traffic": max_traffic,
        "max_latency": max_latency,
        "deploy": deploy,
        "trials": trials,
        "finalists": finalists,
        "seeds": seeds,
        "epochs": epochs,
        "vocabulary": _names(vocabulary) or None,
        "include": _names(include) or None,
        "exclude": _names(exclude) or None,
        "rivals": tuple(rival) if rival else None,
        "allow_incomplete": allow_incomplete or None,
        "objectives": _names(objectives) or None,
        "early_stopping": None if early_stopping else False,
        "sampler": sampler,
        "workers": workers,
        "threads": threads,
        "executor": executor,
        "trial_timeout": trial_timeout,
        "per_gpu": per_gpu,
        "storage": storage,
        "study": study,
        "seed": seed,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if resume is not None:
        if given or out:
            words = ", ".join("--" + name.replace("_", "-") for name in given) or "--out"
            raise ValueError(f"--resume takes everything from {resume}; leave out {words}")
        _watched(resume, None, as_json)
    else:
        limits = Limits.read(max_params, max_mults, max_traffic, max_latency)
        amounts = {f"max_{name}": value for name, value in asdict(limits).items()}
        _watched(out or _new_folder(), settings(**(given | amounts)), as_json)


def _new_folder() -> Path:
    """runs/ and the time of day; a second run within the second gets a number."""
    name = Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    count = 1
    folder = name
    while folder.exists():
        count += 1
        folder = name.with_name(f"{name.name}-{count}")
    return folder


def _watched(folder: Path, chosen: Any, as_json: bool) -> None:
    """Run or resume under a live display, then print the table."""
    from nas import report
    from nas.audit import read
    from nas.search import resume, search

    with report.observer() as watching:
        result = search(chosen, folder, watching) if chosen else resume(folder, watching)
    if as_json:
        print(json.dumps({**result.to_dict(), "audit": read(folder)}))
        return
    out = report.console()
    leading = report.finalists(result.rows)
    out.print(report.ranked_table(leading, f"{folder}: {report.summary(result.rows)}"))
    if len(leading) < len(result.rows):
        out.print(f"the rest of the table: leanfield show {folder}")
    for note in result.notes:
        out.print(note)
    _trusted(folder, out)
    if result.best is not None and not result.interrupted:
        out.print(report.winner(result.best))
        for code in sorted(folder.glob("winners/01-*/*.py")):
            out.print(f"it runs without leanfield: python {code}", soft_wrap=True)


def _trusted(folder: Path, out: Any) -> None:
    """How far the table can be believed, in a few lines."""
    from nas import audit
    from nas.audit_report import lines

    content = audit.read(folder)
    for line in lines(folder, content) if content is not None else ():
        out.print(line)


def show(
    run: Run,
    top: Annotated[int | None, Option(min=1, help="rows to show; all unless given")] = None,
    as_json: Json = False,
) -> None:
    """The ranked table of a run, also of one that is not finished."""
    from nas import report
    from nas.result import Result
    from nas.table import table

    rows = table(run)
    if as_json:
        print(json.dumps(Result(run, rows).to_dict()))
        return
    title = f"{run}: {report.summary(rows)}"
    out = report.console()
    out.print(report.ranked_table(rows[:top], title))
    for row in () if top else rows:
        if row.state != "complete":
            out.print(f"{row.state}: {row.design}: {row.reason}", style="dim")
    if not top:
        _trusted(run, out)


def export(
    run: Run,
    rank: Annotated[int, Option(min=1, help="which network of the table")] = 1,
    format: Annotated[str, Option(help="python or json")] = "python",
    out: Annotated[Path, Option(help="folder for the files")] = Path("export"),
    as_json: Json = False,
) -> None:
    """Write a network of a run as code that needs nothing but torch, with its weights."""
    from nas.winners import export_rank

    files = export_rank(run, rank, out, format)
    if as_json:
        print(json.dumps({"run": str(run), "rank": rank, "files": [str(path) for path in files]}))
        return
    for path in files:
        print(path)
    if not any(path.suffix == ".safetensors" for path in files):
        print(f"without weights: rank {rank} is no finalist of {run}", file=sys.stderr)
