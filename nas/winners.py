"""From a rank of a run's table to files that run without leanfield."""

from __future__ import annotations

import json
from pathlib import Path

from nas.candidates import SCHEMA, Sized
from nas.exports import export
from nas.files import RunError
from nas.finals import training_facts
from nas.run import read_record
from nas.table import Row, table


def export_rank(folder: Path, rank: int, out: Path, format: str = "python") -> list[Path]:
    """Write the network of this rank to `out`; with its trained weights if it was a finalist.

    Raises RunError for a rank that the table does not have and for a user's own block.
    """
    rows = table(folder)
    ranks = [row.rank for row in rows if row.rank is not None]
    row = next((row for row in rows if row.rank == rank), None)
    if row is None:
        found = f"valid ranks are 1 to {max(ranks)}" if ranks else "nothing is ranked yet"
        raise RunError(f"{folder} has no rank {rank}; {found}")
    if row.network is None or row.network.get("schema") != SCHEMA or "design" not in row.network:
        raise RunError(f"rank {rank} is {row.design}, your own block: there is nothing to export")
    facts = training_facts(read_record(folder).settings.data, row)
    kept = winner_folder(folder, row)
    if kept is None:
        return export(Sized.from_dict(dict(row.network)), None, out, format, facts)
    from safetensors.torch import load_file

    trained = json.loads((kept / "network.json").read_text(encoding="utf-8"))["trained"]
    state = load_file(kept / "weights.safetensors")
    return export(Sized.from_dict(trained), state, out, format, facts)


def winner_folder(folder: Path, row: Row) -> Path | None:
    """Where the weights of a finalist are kept, None for any other row.

    Found by its network: the ranks of a run of an earlier version may have been others.
    """
    for file in sorted((folder / "winners").glob("*/network.json")):
        if json.loads(file.read_text(encoding="utf-8"))["network"] == row.network:
            return file.parent
    return None
