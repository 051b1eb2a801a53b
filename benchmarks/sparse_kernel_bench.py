"""python -m benchmarks sparse_kernel_bench: train the designs of SparseKernelBench and pack them.

Stopped at any time, it goes on where it was: the file of finished trainings (--out) is only added
to. What there is at the end is packed into the table of `nas.sparse_kernel_bench`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.machine import RESULTS
from nas.sparse_kernel_bench import TABLE
from nas.sparse_kernel_bench.generate import Record, generate, planned, records
from nas.sparse_kernel_bench.pack import pack
from nas.sparse_kernel_bench.plan import plan
from nas.sparse_kernel_bench.protocols import PROTOCOLS

LEDGER = RESULTS / "sparse_kernel_bench.jsonl"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks sparse_kernel_bench", description=__doc__
    )
    parser.add_argument("--workers", type=int, default=1, help="trainings at once")
    parser.add_argument("--out", type=Path, default=LEDGER, help="one line a finished training")
    parser.add_argument("--table", type=Path, default=TABLE, help="the packed table")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none after that")
    parser.add_argument("--only", nargs="+", choices=PROTOCOLS, help="these schedules alone")
    asked = parser.parse_args(arguments)
    wanted = [PROTOCOLS[name] for name in asked.only or PROTOCOLS]
    jobs = [job for job in plan() if job.protocol in wanted] if asked.seconds > 0 else []
    print(f"{len(jobs)} trainings are planned, {len(records(asked.out))} are there", flush=True)
    generate(jobs, asked.out, workers=asked.workers, seconds=asked.seconds, report=_tell)
    lines = planned(plan(), records(asked.out))
    rows = pack(lines, asked.table)
    print(f"{rows} trainings in {asked.table}, {asked.table.stat().st_size:,} bytes")
    return 0


def _tell(record: Record) -> None:
    network, accuracy = record["network"], record["accuracy"]
    blocks = "-".join(map(str, network["blocks"]))
    reached = record["failure"] if accuracy is None else f"{accuracy:.3f}"
    print(
        f"{network['design']} x{blocks} at {record['budget']:,}, "
        f"{record['protocol']['schedule']['epochs']} epochs: {reached}, {record['seconds']:.1f} s",
        flush=True,
    )
