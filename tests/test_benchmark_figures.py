"""The benchmarks' cases, floors, clock, figure and networks, on maps of a few pixels."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from benchmarks import __main__ as benchmarks
from benchmarks import kernels, networks
from benchmarks.layers import Layer
from benchmarks.machine import RESULTS
from benchmarks.suite import figures
from benchmarks.suite.case import KINDS, OURS, Draw, Peer
from benchmarks.suite.ceilings import Ceilings
from benchmarks.suite.clock import UNCAPTURED, Graphics
from benchmarks.suite.operations import KINDS_OF, OPERATIONS, lean_case
from benchmarks.suite.plot import drawable, measured_on, plot, series_of
from benchmarks.suite.ratios import SMALL, methods
from benchmarks.timing import interleaved
from kernels import choice

TINY = Layer(16, 5, 2)
CPU = torch.device("cpu")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def unmeasured() -> Iterator[None]:
    with choice.frozen({}):
        yield


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_ours_and_its_peers_are_right(name: str, kind: str) -> None:
    """Also the merged dense kernel and the spread stencil are the same operation."""
    if kind not in KINDS_OF.get(name, tuple(KINDS)):
        pytest.skip("not a precision of this operation")
    torch.manual_seed(0)
    case = OPERATIONS[name](Draw(TINY, kind, CPU), kind, False)
    assert case.wrong(case.errors()) == []
    expected = case.definition(*(one.double() for one in case.peers[OURS].tensors))
    for peer_name, peer in case.peers.items():
        y = peer.function(*peer.tensors)
        if peer_name.startswith(figures.SAME) or peer_name == "dense":
            assert y.shape[0] == 2 and y.shape[2:] == (5, 5)
            continue
        error = (y - expected).abs().max() / expected.abs().max()
        assert error <= 4 * case.bound, peer_name


def test_what_is_wrong_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(draw: Draw, kind: str, compile: bool) -> Any:
        case = OPERATIONS["lean9"](draw, kind, compile)
        ours = case.peers[OURS]
        wrong = Peer(lambda *t: ours.function(*t) + 1e-3, ours.tensors)
        return replace(case, peers={**case.peers, OURS: wrong})

    monkeypatch.setitem(OPERATIONS, "sic", shifted)
    code, result = run(tmp_path, "--parts", "sic")
    assert code == 1 and result["rows"] == []
    assert "output" in result["wrong"][0] and "at most" in result["wrong"][0]


def test_equal_weights_of_the_expanded_rival() -> None:
    case = lean_case(Draw(Layer(256, 2, 1), "fp32", CPU), "fp32", "9", 0, False)
    projection = case.peers["expanded"].tensors[2]
    assert projection.shape[1] == 6 * projection.shape[0]
    assert abs(projection.numel() / 256**2 - 1) < 0.02


def test_the_floor() -> None:
    """16 channels at 512 x 512, batch 64, at 4.3 TB/s: 249.7 us in bf16 forward, 374.6 backward;
    512 at 16 x 16: 10.9 by products at 788 TFLOP/s, in fp32 65 by three of TF32 at 394."""
    ceilings = Ceilings(4.3e12, {"bf16": 788e12, "tf32": 394e12, "fp32": 60e12})
    wide = lean_case(Draw(Layer(512, 16, 1), "bf16", CPU), "bf16", "9", 0, False)
    large = replace(wide, layer=Layer(16, 512, 64))
    seconds = [ceilings.floor(large, way) for way in ("forward", "backward")]
    assert seconds == pytest.approx([249.7e-6, 374.6e-6], rel=1e-3)
    work = replace(wide.work, products=64 * wide.work.products, others=0.0)
    full = replace(wide, layer=Layer(512, 16, 64), work=work)
    assert ceilings.floor(full, "forward") == pytest.approx(10.9e-6, rel=1e-2)
    assert ceilings.floor(replace(full, kind="fp32"), "forward") == pytest.approx(65e-6, rel=1e-2)


def run(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """`benchmarks kernels --figures` on the two narrowest layers of Fig. 5, tiny."""
    size = ("--shrink", "128", "--rounds", "1", "--window", "0.0001", "--no-compile")
    given = ("--figures", "--allocator", "default", "--threads", "1", "--out", str(folder))
    code = kernels.main([*given, *size, *arguments])
    return code, json.loads((folder / "kernels-figures-cpu.json").read_text())


def test_a_run_is_stored_joined_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "times.svg"
    code, result = run(tmp_path, "--parts", "lean9", "--plot", str(picture))
    assert code == 0 and {"date", "processor", "versions"} <= result["machine"].keys()
    rows = result["rows"]
    assert [r["layer"] for r in rows[::2]] == ["16@4", "32@2", "64@1", "128@1", "256@1", "512@1"]
    for row in rows:
        assert row["ours"] == row["seconds"][OURS] > 0
        peers = {n: t for n, t in row["seconds"].items() if not n.startswith((OURS, *figures.SAME))}
        assert row["best"] == min(peers, key=peers.__getitem__)
        assert row["ratio"] == pytest.approx(peers[row["best"]] / row["ours"])
        assert row["over_floor"] == pytest.approx(row["ours"] / row["floor"])
        assert row["served"].keys() == {"lean", "lean backward"} or row["served"].keys() == {"lean"}
    code, result = run(tmp_path, "--parts", "sic", "lean9", "--layers", "2")
    operations = [row["operation"] for row in result["rows"]]
    assert operations.count("lean 9") == 12 and operations.count("sic") == 4
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_the_figure_has_a_line_for_each_method(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    row = {"kind": "fp32", "batch": 64, "floor": 1.0}
    rows = [
        {**row, "operation": operation, "direction": way, "layer": layer,
         "seconds": {OURS: 2.0, "eager last" + UNCAPTURED: 4.0}}
        for operation in ("lean 9", "lean 5")
        for way in ("forward", "backward")
        for layer in ("16@512", "32@256")
    ]  # fmt: skip
    assert series_of(rows, "fp32", "forward") == {
        "ours": {"16@512": 2.0, "32@256": 2.0},
        "lean 5": {"16@512": 2.0, "32@256": 2.0},
        "eager last": {"16@512": 4.0, "32@256": 4.0},
        "floor": {"16@512": 1.0, "32@256": 1.0},
    }
    about = {"processor": "A", "device": "cpu, 2 threads", "versions": {"torch": "2"}}
    result = {"machine": about, "rows": rows}
    assert plot(result, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert measured_on(result) == "A, 2 threads, torch 2"
    with pytest.raises(ValueError, match="nothing to draw"):
        plot({**result, "rows": []}, tmp_path / "b.png")


def test_a_stored_run_is_drawn_without_measuring(tmp_path: Path, monkeypatch: Any) -> None:
    """The figure in docs/ is the one that the stored run of the CPU gives."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(kernels, "_measured", None)
    stored, picture = RESULTS / "kernels-cpu-2.json", tmp_path / "times.svg"
    assert kernels.main(["--stored", str(stored), "--plot", str(picture)]) == 0
    result = json.loads(stored.read_text())
    drawn = drawable(result)
    assert len(drawn) == sum(row["operation"] == "lean" for row in result["rows"]) == 14
    text = picture.read_text()
    methods = series_of(drawn, "fp32", "forward")
    assert methods.keys() == {*drawn[0]["seconds"], "floor"}
    for heading in ("forward and backward", "floor", measured_on(result)):
        assert heading in text, heading
    with pytest.raises(SystemExit):
        kernels.main(["--stored", str(stored)])


def test_a_busy_machine_is_named() -> None:
    about = {"load": [3.5, 2.0, 1.0], "cores": 4}
    assert "load 3.5 on 4 cores" in figures.crowded(about, "cpu")
    assert figures.crowded(about, "cuda") == figures.crowded({**about, "cores": 8}, "cpu") == ""


def test_a_stalling_call_ends_its_round() -> None:
    """Quick when the calls of a round are counted, slow ever after."""
    calls = []

    def stalling() -> None:
        calls.append(0)
        sleep(0.05 if len(calls) > 2 else 1e-5)

    times = interleaved({"a": stalling}, rounds=3, window=0.002)
    assert len(calls) == 2 + 3 and times["a"].least >= 0


def test_a_run_has_caches_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it waits for no lock, and leaves the user's as they are."""
    monkeypatch.setenv("XDG_CACHE_HOME", "mine")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with kernels._own_caches():
        folder = os.environ["XDG_CACHE_HOME"]
        assert folder == os.environ["TORCHINDUCTOR_CACHE_DIR"] != "mine"
        assert Path(folder).is_dir()
    assert os.environ["XDG_CACHE_HOME"] == "mine" and not Path(folder).exists()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_ratios_of_all_methods() -> None:
    point = next(p for p in SMALL.points() if p.varied == "stencil" and p.value == 15)
    point = point._replace(layer=Layer(4, 6, 1))
    for name, peer in methods(point, "fp32", CPU).items():
        assert peer.function(*peer.tensors).shape == (1, 4, 6, 6), name
    assert [p.value for p in SMALL.points() if p.varied == "stencil"] == [3, 5, 7, 9, 11, 13, 15]
    assert {p.varied for p in SMALL.points()} == {"map", "stencil", "channels"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["kernels", "networks"])
def test_without_a_gpu_it_says_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks.main([name, "--device", "cuda"]) == 4
    said = capsys.readouterr()
    assert said.out == "" and "sees no CUDA device; valid is" in said.err
    assert "leanfield[gpu]" in said.err


@pytest.mark.slow
def test_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--only", "lean", "--size", "16", "--batch", "2", "--rounds", "1", "--threads", "1"]
    assert networks.main([*asked, "--out", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "networks-cpu.json").read_text())["networks"]
    assert row["theoretical"] == row["mults"][1] / row["mults"][0] > 5
    for what in ("forward", "training"):
        assert row[what].keys() == {"rival", "plain", "kernels"}
        assert min(row[what].values()) > 0
    assert row["errors"]["kernels"] < 1e-4
    assert "lean" in row["served"] and "torch" in row["served"]["lean"]
    assert "theoretical ratio" in capsys.readouterr().out


# ---- the clock of a GPU, with a stand-in for it --------------------------------------------------


class Fake:
    """What of torch.cuda the clock uses; `log` holds what happened, in order."""

    def __init__(self, capture: bool) -> None:
        self.log: list[str] = []
        self.capture = capture
        fake = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                fake.log.append("event")

            def elapsed_time(self, end: Any) -> float:
                return 3.0

        class Context:
            def __init__(self, *_: Any, **__: Any) -> None: ...

            def __enter__(self) -> None: ...

            def __exit__(self, *_: object) -> None:
                return None

        class Capture(Context):
            def __enter__(self) -> None:
                if not fake.capture:
                    raise RuntimeError("operation not permitted when stream is capturing")

        class Graph:
            def replay(self) -> None:
                fake.log.append("replay")

        self.parts: dict[str, Any] = {
            "Event": Event,
            "Stream": Context,
            "stream": Context,
            "graph": Capture,
            "CUDAGraph": Graph,
            "synchronize": lambda: None,
            "empty_cache": lambda: None,
            "current_device": lambda: 0,
            "get_device_properties": lambda _: type("Properties", (), {"L2_cache_size": 1}),
        }


@pytest.mark.parametrize("capture", [True, False])
def test_a_graph_is_replayed_where_it_can_be_captured(
    capture: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(capture)
    for name, part in fake.parts.items():
        monkeypatch.setattr(torch.cuda, name, part)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **more: empty(1, dtype=more["dtype"]))

    def ready() -> Callable[[], None]:
        return lambda: fake.log.append("call")

    found = Graphics(repeats=2).seconds({"f": ready})
    assert found == {"f" if capture else "f" + UNCAPTURED: 0.003}
    timed = "replay" if capture else "call"
    assert fake.log == ["call"] * (4 if capture else 3) + ["event", timed, "event"] * 2
