"""The command that says how far the ranking of a run can be trusted."""

from __future__ import annotations

import json
from typing import Annotated

from typer import Option

from nas.cli_search import Json, Run


def audit(
    run: Run,
    sample: Annotated[int, Option(min=5, help="designs to train for long")] = 12,
    seeds: Annotated[int, Option(min=1, help="long trainings of each")] = 2,
    epochs: Annotated[int | None, Option(min=1, help="of a long training (40)")] = None,
    workers: Annotated[
        int | None, Option(min=1, help="processes side by side; those of the run if absent")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a sample of a run's designs for long and compare the ranking with it."""
    from nas import audit_report, report
    from nas.auditor import audit as audited

    with report.observer() as watching:
        result = audited(
            run, sample=sample, seeds=seeds, epochs=epochs, workers=workers, observer=watching
        )
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    out = report.console()
    if not result.interrupted:
        out.print(audit_report.table(result.content["long"], f"{run}"))
        for line in audit_report.of_sample(result.content["long"]):
            out.print(line)
    for line in audit_report.of_search(result.content["brief"]):
        out.print(line)
