"""Concrete designs evaluated per second, against tools that count a built module.

Every row of the sweep is a valid design with exact field completeness, params, mults, adds and
traffic, passed through the Pareto filter; a peer counts params and mults only. Each peer gets a
random sample of the same designs in the way that is fastest for it: modules on torch's meta
device, which neither initialises nor computes. fvcore traces and so has to compute; it gets a
1 x 1 map, whose count is multiplied by the pixels. Building is shown with and without. A peer
runs in one process and one thread, since its work is Python's; the sweep is shown with one
worker too.

Before any speed is printed, sampled rows are compared with `field`, `cost` and the built module.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.cost import cost
from analysis.field import field
from analysis.grid import Grid, Row
from analysis.sweep import Summary, Sweep
from benchmarks.machine import RESULTS, machine, peak_memory, store

if TYPE_CHECKING:
    from torch import nn

PACKAGES = ("numpy", "numba", "torch", "torchinfo", "ptflops", "fvcore")
SIZE = (32, 32)
AIM = 10_000

Counts = tuple[int, int]
"""(params, mults)."""
Build = Callable[[Row], "nn.Module"]
Count = Callable[["nn.Module", Row], Counts]


def main(arguments: Sequence[str]) -> int:
    """0, or 1 if a row disagrees or the aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sweep", description=__doc__)
    parser.add_argument("--sample", type=int, default=1000, help="designs for each peer")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="the median sweep is reported")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    options = parser.parse_args(arguments)

    about = machine(PACKAGES)
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    compiling = _seconds(lambda: Sweep(Grid(channels=(8,), features=(8,))).run())
    base = peak_memory()
    grid = Grid(size=SIZE)
    sweep = Sweep(grid)
    print(f"\ngrid: {grid}\n{len(sweep):,} designs in {sweep.cells:,} cells")
    runs = [sweep.run(options.workers) for _ in range(options.repeats)]
    single = sweep.run(1)
    grown = peak_memory() - base

    chosen = random.Random(options.seed)
    sample = [sweep[chosen.randrange(len(sweep))] for _ in range(options.sample)]
    wrong = [text for row in sample for text in disagreements(row)]
    print(f"{len(sample):,} sampled rows against field, cost and the built module: ", end="")
    print(f"{len(wrong)} disagreements", *wrong[:10], sep="\n  ")
    if wrong:
        return 1

    seconds = statistics.median(run.seconds for run in runs)
    speed = single.rows / seconds
    peers = [measure(name, build, count, sample) for name, (build, count) in _peers().items()]
    result = {
        "machine": about,
        "grid": str(grid),
        "rows": single.rows,
        "complete": single.complete,
        "front": len(single.front),
        "sample": len(sample),
        "workers": options.workers,
        "seconds": [run.seconds for run in runs],
        "designs_per_second": speed,
        "designs_per_second_one_worker": single.rows / single.seconds,
        "compile_seconds": compiling,
        "memory_bytes": {"before": base, "grown": grown},
        "peers": peers,
        "ratio": speed / max(peer["per_second"] for peer in peers),
        "ratio_without_building": speed / max(peer["per_second_built"] for peer in peers),
    }
    report(result, runs[0])
    print(f"written to {store(result, options.out / 'sweep.json')}")
    return 0 if result["ratio_without_building"] >= AIM else 1


def disagreements(row: Row) -> list[str]:
    """What the sweep says otherwise than the exact field, the cost and the built module."""
    from torch.utils.flop_counter import FlopCounterMode

    where = (row.design, row.channels, row.out_channels)
    seen, spent = field(*where), cost(*where, size=SIZE)
    module = _build(row)
    counter = FlopCounterMode(display=False)
    with counter:
        module(_input(row))
    pairs = {
        "channels seen": (row.seen, seen.size[2]),
        "volume": (row.volume, seen.volume),
        "complete": (row.complete, seen.complete),
        "params": (row.params, spent.params),
        "mults": (row.mults, spent.mults),
        "adds": (row.adds, spent.adds),
        "traffic": (row.traffic_bytes, spent.traffic_bytes),
        "numel": (row.params, _numel(module)),
        "flop counter": (2 * row.mults, counter.get_total_flops()),
    }
    return [
        f"{row.design} {row.channels}->{row.out_channels}: {what} {ours}, expected {theirs}"
        for what, (ours, theirs) in pairs.items()
        if ours != theirs
    ]


def measure(name: str, build: Build, count: Count, sample: Sequence[Row]) -> dict[str, Any]:
    """Designs per second of one peer, and for how many it agrees with the sweep."""
    import torch

    torch.set_num_threads(1)
    with torch.no_grad():
        return _measure(name, build, count, sample)


def _measure(name: str, build: Build, count: Count, sample: Sequence[Row]) -> dict[str, Any]:
    count(build(sample[0]), sample[0])
    building = counting = 0.0
    agree = 0
    for row in sample:
        begin = time.perf_counter()
        module = build(row)
        built = time.perf_counter()
        counts = count(module, row)
        end = time.perf_counter()
        building, counting = building + built - begin, counting + end - built
        agree += counts == (row.params, row.mults)
    return {
        "name": name,
        "per_second": len(sample) / (building + counting),
        "per_second_built": len(sample) / counting,
        "agree": agree,
    }


def report(result: dict[str, Any], run: Summary) -> None:
    """The table, and the ends of the Pareto set."""
    speed, peers = result["designs_per_second"], result["peers"]
    print(f"\nPareto set of {len(run.front):,}: most links, median, fewest")
    for row in (run.front[0], run.front[len(run.front) // 2], run.front[-1]):
        print(
            f"  {row.design} at {row.channels}->{row.out_channels}: {row.links:,} links, "
            f"{row.params:,} params, {row.traffic_bytes:,} bytes"
        )
    print(f"\ncompiling: {result['compile_seconds']:.1f} s, once a process, not in the figures")
    memory = result["memory_bytes"]
    print(
        f"resident memory: {memory['before'] / 2**20:.0f} MiB before, "
        f"{memory['grown'] / 2**20:.0f} MiB more for {result['rows']:,} designs"
    )
    print(f"\n{'designs per second':26}{'with building':>16}{'built before':>16}{'agree':>8}")
    for peer in peers:
        print(
            f"{peer['name']:26}{peer['per_second']:16,.0f}{peer['per_second_built']:16,.0f}"
            f"{peer['agree']:8,}"
        )
    print(f"{'sweep, 1 worker':26}{result['designs_per_second_one_worker']:16,.0f}")
    print(f"{'sweep, ' + str(result['workers']) + ' workers':26}{speed:16,.0f}")
    print(
        f"\nthe fastest peer takes {result['ratio']:,.0f} times as long, "
        f"{result['ratio_without_building']:,.0f} times with its modules built before\n"
        f"(aim: {AIM:,} times)"
    )


def _peers() -> dict[str, tuple[Build, Count]]:
    """How each peer builds and counts. The libraries are imported here, after the sweep."""
    import ptflops
    import torchinfo
    from fvcore.nn import FlopCountAnalysis
    from torch.utils.flop_counter import FlopCounterMode

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)

    def by_torchinfo(module: nn.Module, row: Row) -> Counts:
        found = torchinfo.summary(
            module, input_data=_input(row), device="meta", verbose=0, cache_forward_pass=False
        )
        return found.total_params, found.total_mult_adds

    def by_ptflops(backend: str) -> Count:
        def count(module: nn.Module, row: Row) -> Counts:
            mults, params = ptflops.get_model_complexity_info(
                module,
                (row.channels, *SIZE),
                print_per_layer_stat=False,
                as_strings=False,
                backend=backend,
            )
            return int(params), int(mults)

        return count

    def by_fvcore(module: nn.Module, row: Row) -> Counts:
        import torch

        found = FlopCountAnalysis(module, torch.zeros(1, row.channels, 1, 1))
        found.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return _numel(module), int(found.total()) * SIZE[0] * SIZE[1]

    def by_torch(module: nn.Module, row: Row) -> Counts:
        counter = FlopCounterMode(display=False)
        with counter:
            module(_input(row))
        return _numel(module), counter.get_total_flops() // 2

    return {
        "torchinfo": (_build, by_torchinfo),
        "ptflops (pytorch)": (_build, by_ptflops("pytorch")),
        "ptflops (aten)": (_build, by_ptflops("aten")),
        "fvcore (1 x 1 map)": (_build_real, by_fvcore),
        "torch flop_counter": (_build, by_torch),
    }


def _build(row: Row) -> nn.Module:
    """The design on the meta device: shapes without memory."""
    import torch

    with torch.device("meta"):
        steps = row.design.places(row.channels, row.out_channels, *SIZE)
        return torch.nn.Sequential(*(step.item.module(step.place) for step in steps))


def _build_real(row: Row) -> nn.Module:
    """The design in memory, uninitialised."""
    return _build(row).to_empty(device="cpu")


def _input(row: Row) -> Any:
    import torch

    return torch.empty(1, row.channels, *SIZE, device="meta")


def _numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
