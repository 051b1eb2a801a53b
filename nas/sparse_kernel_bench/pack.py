"""From the lines of finished trainings to one Parquet file, whose columns `SCHEMA` declares.

What is known without training is computed here, once a network: costs, the information field of the
first stage's block, the rank of its equivalent matrix, and the training-free scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis.cost import Cost
from analysis.equivalent import rank
from nas.candidates import Sized
from nas.rankings import IMAGES, SEEDS, field_of
from nas.sparse_kernel_bench.designs import half
from nas.sparse_kernel_bench.protocols import DATA, PROTOCOLS, Protocol, data_for
from spaces.design import Design, parse

VERSION = 1

SCHEMA: dict[str, tuple[str, str]] = {
    "design": ("string", "block and blocks a stage: 'GC(4)+PWG(4) x1-2-3'; the name of a row"),
    "block": ("string", "the design of every block"),
    "blocks": ("string", "blocks of each stage"),
    "stratum": ("string", "fog, full or control"),
    "family": ("string", "composition from which the design was drawn"),
    "half": ("string", "A, on which choices are made, or B, on which they are reported"),
    "budget": ("int32", "parameters allowed"),
    "width": ("int16", "channels of the first stage, the most that the budget allows"),
    "depth": ("int8", "number of blocks"),
    "kernel": ("int8", "largest kernel side of an operator of the block, 1 if none is spatial"),
    "params": ("int32", "parameters"),
    "mults": ("int32", "multiplications an image"),
    "adds": ("int32", "additions an image"),
    "traffic_bytes": ("int32", "bytes an image, unfused, float32"),
    "field_size": ("int32", "columns x rows x channels that an output of the first block sees"),
    "field_volume": ("int32", "inputs that it sees"),
    "complete": ("bool", "whether every block sees the whole 3 x 3 x C window"),
    "rank": ("int16", "of the first block's equivalent matrix; missing for a time step"),
    "naswot": ("float32", "training-free, see nas.scores; mean of the initial weights of 3 seeds"),
    "gradient": ("float32", "the same"),
    "snip": ("float32", "the same"),
    "synflow": ("float32", "the same"),
    "schedule": ("string", "name of the schedule; the file's metadata say what it is"),
    "seed": ("int16", "of initial weights, order and shifts of the images"),
    "accuracy": ("float32", "on the validation split after the last epoch; missing for a failure"),
    "loss": ("float32", "cross-entropy there"),
    "test_accuracy": ("float32", "on the test split"),
    "test_loss": ("float32", "cross-entropy there"),
    "curve": ("list", "accuracy after each judged epoch, the last of them included"),
    "failure": ("string", "why there is no accuracy"),
    "seconds": ("float32", "processor time of the training and one judgement, one thread"),
    "machine": ("string", "where it ran"),
    "versions": ("string", "of what it ran on"),
}
"""Each column: its type and what it says."""


def pack(lines: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write the table of these trainings; the number of its rows.

    Trainings by schedules that have no name any more are left out, repeated ones too. Raises
    ValueError where nothing is left.
    """
    import pyarrow.parquet as parquet

    names = {_content(protocol): name for name, protocol in PROTOCOLS.items()}
    facts: dict[str, dict[str, Any]] = {}
    rows: dict[tuple[str, int, str, int], dict[str, Any]] = {}
    for line in lines:
        name = names.get(json.dumps(line["protocol"], sort_keys=True))
        if name is None:
            continue
        network = json.dumps(line["network"])
        if network not in facts:
            facts[network] = _facts(line)
        row = {**facts[network], "schedule": name, **_result(line)}
        rows.setdefault((row["design"], row["budget"], name, row["seed"]), row)
    if not rows:
        raise ValueError("there is no finished training by a schedule that has a name")
    ordered = [rows[key] for key in sorted(rows)]
    table = _table(ordered)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    parquet.write_table(table, draft, compression="zstd", compression_level=19)
    draft.replace(path)
    return len(ordered)


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of the rows by the columns of the schema: of what they say, not of the file."""
    digest = hashlib.sha256()
    for row in rows:
        values = [_plain(row[name]) for name in SCHEMA]
        digest.update(json.dumps(values).encode() + b"\n")
    return digest.hexdigest()


def _table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    kinds = {"list": pa.list_(pa.float32()), "bool": pa.bool_()}
    fields = [
        pa.field(name, kinds[kind] if kind in kinds else getattr(pa, kind)())
        for name, (kind, _) in SCHEMA.items()
    ]
    table = pa.Table.from_pylist(rows, pa.schema(fields))
    record = {
        "version": VERSION,
        "data": DATA,
        "data_fingerprint": data_for(1.0, 1).fingerprint,
        "schedules": {name: protocol.to_dict() for name, protocol in PROTOCOLS.items()},
        "columns": {name: meaning for name, (_, meaning) in SCHEMA.items()},
        "fingerprint": fingerprint(table.to_pylist()),
    }
    return table.replace_schema_metadata({"sparse_kernel_bench": json.dumps(record)})


def _content(protocol: Protocol) -> str:
    content = protocol.to_dict()
    del content["seeds"]
    return json.dumps(content, sort_keys=True)


def _result(line: Mapping[str, Any]) -> dict[str, Any]:
    names = ("seed", "accuracy", "loss", "test_accuracy", "test_loss", "curve", "failure")
    return {name: line[name] for name in (*names, "seconds", "machine", "versions")}


def _facts(line: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a network before it is trained."""
    network = Sized.from_dict(line["network"])
    cost: Cost = network.cost
    first = parse(network.layers[0])
    size, volume = field_of(network)
    return {
        "design": str(network.candidate),
        "block": str(network.candidate.design),
        "blocks": "-".join(map(str, network.candidate.blocks)),
        "stratum": line["stratum"],
        "family": line["family"],
        "half": half(network.candidate.design),
        "budget": line["budget"],
        "width": network.width,
        "depth": sum(network.candidate.blocks),
        "kernel": _kernel(first),
        "params": cost.params,
        "mults": cost.mults,
        "adds": cost.adds,
        "traffic_bytes": cost.traffic_bytes,
        "field_size": size,
        "field_volume": volume,
        "complete": network.why_incomplete() is None,
        "rank": rank(first, network.width),
        **_scores(network),
    }


def _scores(network: Sized) -> dict[str, float]:
    import torch

    from nas.scores import Scores, scores

    train = data_for(1.0, 1).train
    images = torch.from_numpy(train.images[:IMAGES])
    labels = torch.from_numpy(train.labels[:IMAGES])
    found = [scores(network.module(seed), images, labels) for seed in SEEDS]
    columns = zip(*found, strict=True)
    return {
        name: sum(column) / len(found) for name, column in zip(Scores._fields, columns, strict=True)
    }


def _kernel(design: Design) -> int:
    return max(max(operator.window or (1, 1)) for operator in design.operators)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
