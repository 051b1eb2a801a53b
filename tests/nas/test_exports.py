"""Exported winners: what they compute, what they refuse, and that they need torch only."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.cost import network_cost
from analysis.field import field
from analysis.theorems import resolve
from kernels.choice import using
from nas.candidates import Candidate, Sized, Task
from nas.exports import ExportError, export, file_stem, formats
from nas.exports.weights import read, to_bytes
from spaces.design import Design, parse
from spaces.known import KNOWN
from spaces.network import block
from spaces.operator import DesignError

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    """An exported file holds the definitions, so that only plain torch agrees in every bit."""
    with using("torch"):
        yield


NAMED = (
    "DW+PW",
    "GC(*)+PWG(*)",
    "PWG(*)+DW+PWG(*)@1/4",
    "PWG(q=4)+DW+PWG(q=4)@1/2",
    "GC(q=4,k=5)+PWG(q=8)",
    "GC(*,d=2)+PW+GC(*)",
    "PWG(2)~+GC(4,k=5)+PW@3/2",
    "GC(*)~+PWG(*)+PWG(*)",
    "PW+PW@2",
    "PWG+PWG(2)+DW(k=5)+PWG@1/2",
)


def random_design(rng: random.Random) -> Design:
    operators = []
    for _ in range(rng.randint(1, 4)):
        symbol = rng.choice(["STD", "GC", "DW", "PW", "PWG"])
        words = [rng.choice(["2", "3", "4", "q=2", "q=4"])] if symbol in {"GC", "PWG"} else []
        if symbol in {"STD", "GC", "DW"}:
            words += rng.choice([[], [], ["k=5"], ["d=2"], ["k=5", "d=2"]])
        brackets = f"({','.join(words)})" if words else ""
        operators.append(symbol + brackets + rng.choice(["", "", "~"]))
    return parse("+".join(operators) + rng.choice(["", "", "@1/4", "@1/2", "@2", "@3/2"]))


def winners() -> list[Sized]:
    """Named designs, known blocks and random ones, each at a width where it stands."""
    rng = random.Random(7)
    found = [
        Candidate(parse(text), (1, 1), rng.choice([(), (0,)])).sized(Task((1, 9, 8), 3), 16)
        for text in NAMED
    ]
    found += [
        Candidate(known.design, (1, 2), known.inner, known.name).sized(Task((3, 8, 8), 4), 32)
        for known in KNOWN
    ]
    while len(found) < len(NAMED) + len(KNOWN) + 20:
        design = random_design(rng)
        inner = tuple(i for i in range(len(design.operators)) if rng.random() < 0.3)
        blocks = tuple(rng.randint(1, 2) for _ in range(rng.randint(1, 3)))
        task = Task(rng.choice([(1, 16, 16), (3, 7, 11), (2, 65, 30)]), rng.randint(2, 11))
        sized = Candidate(design, blocks, inner).sized(task, rng.choice([8, 12, 16, 24]))
        try:
            sized.cost  # noqa: B018
        except DesignError:
            continue
        found.append(sized)
    return found


WINNERS = winners()
IDS = [f"{sized.candidate} w{sized.width}" for sized in WINNERS]


def loaded(path: Path) -> Any:
    """The exported file as a module, under a name of its own."""
    spec = spec_from_file_location(f"exported_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exported(sized: Sized, folder: Path) -> Any:
    return loaded(export(sized, None, folder)[0])


def named(design: str) -> Sized:
    return next(sized for sized in WINNERS if str(sized.candidate.design) == design)


# ---- the network ---------------------------------------------------------------------------------


def scrambled(sized: Sized) -> nn.Module:
    """The searched network with weights and running statistics that no initialisation gives."""
    module = sized.module(seed=1)
    torch.manual_seed(2)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn_like(tensor)
            tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else tensor + noise / 4)
    return module


@pytest.mark.parametrize("sized", WINNERS, ids=IDS)
def test_the_network_is_bit_equal_to_the_searched_one(sized: Sized, tmp_path: Path) -> None:
    ours = scrambled(sized)
    python, weights = export(sized, ours.state_dict(), tmp_path)
    theirs = loaded(python).load(weights)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    channels, height, width = sized.task.input
    for shape in [(height, width), (height + 3, width + 2)]:
        x = torch.randn(2, channels, *shape)
        for mode in (True, False):
            ours.train(mode)
            theirs.train(mode)
            a, b = ours(x), theirs(x)
            assert a.shape == (2, sized.task.classes)
            assert torch.equal(a, b)
    ours.zero_grad()
    a.square().sum().backward()
    b.square().sum().backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
    for p, q in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(p, q)


def test_the_sample_holds_what_can_differ() -> None:
    designs = [sized.candidate.design for sized in WINNERS]
    for sign in ("*", "q=", "~", "k=5", "d=2", "@1/4", "@2"):
        assert any(sign in str(design) for design in designs), sign
    assert any(not any(op.strides for op in design.operators) for design in designs)
    assert any(sized.candidate.inner for sized in WINNERS)
    assert any(max(sized.task.input) >= 64 for sized in WINNERS)


def test_other_inputs_and_classes(tmp_path: Path) -> None:
    module = exported(named("DW+PW"), tmp_path)
    assert module.Network(5, 7).eval()(torch.zeros(2, 5, 33, 21)).shape == (2, 7)


# ---- the block -----------------------------------------------------------------------------------


def foreign_resnet(kind: Any, width: int) -> nn.Module:
    """A small residual network that has never heard of this project."""

    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.entry = nn.Conv2d(3, width, 3, padding=1)
            self.stages = nn.ModuleList()
            for stage in range(2):
                inputs, outputs = width * 2**stage, width * 2 ** (stage + 1)
                self.stages.append(kind(inputs, outputs, stride=2))
                self.stages.append(kind(outputs, outputs))
            self.norm = nn.GroupNorm(2, 4 * width)
            self.exit = nn.Linear(4 * width, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.gelu(self.entry(x))
            for stage in self.stages:
                x = stage(x)
            x = self.norm(x)
            return self.exit(x.mean(dim=(2, 3)))

    return Foreign()


@pytest.mark.parametrize("sized", WINNERS, ids=IDS)
def test_the_block_trains_in_a_foreign_network(sized: Sized, tmp_path: Path) -> None:
    module = exported(sized, tmp_path)
    if not module.fits(48, 96):
        with pytest.raises(ValueError, match="nearest valid"):
            module.Block(48, 96)
        return
    torch.manual_seed(0)
    network = foreign_resnet(module.Block, 48)
    x, y = torch.randn(8, 3, 9, 7), torch.arange(8) % 2
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        loss = functional.cross_entropy(network(x), y)
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in network.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def structure(design: Design, channels: int, features: int, stride: int) -> str | None:
    """The body of the searched block, in torch's words, or None where it cannot stand."""
    try:
        here = resolve(design, channels, features)
        part = block("b", here, channels, features, 9, 9, stride)
    except DesignError:
        return None
    return repr(part.module().body)


@pytest.mark.parametrize("sized", WINNERS, ids=IDS)
def test_the_block_stands_where_the_design_does_and_finds_the_optimum(
    sized: Sized, tmp_path: Path
) -> None:
    plain = Candidate(sized.candidate.design, sized.candidate.blocks).sized(sized.task, sized.width)
    module = exported(plain, tmp_path)
    pairs = [(c, f) for c in (1, 3, 4, 6, 8, 16, 24, 27) for f in (c, 2 * c, 20, 64)]
    with torch.device("meta"):
        for c, f in pairs:
            stride = 1 + (c + f) % 2
            expected = structure(plain.candidate.design, c, f, stride)
            assert module.fits(c, f) == (expected is not None), (c, f)
            if expected is not None:
                assert repr(module.Block(c, f, stride).body) == expected, (c, f)


@pytest.mark.parametrize(
    "text",
    [
        "GC(*)+PWG(*)",
        "PWG(*)+DW+PWG(*)@1/4",
        "PWG+DW+PWG",
        "PWG(*)+GC(*,k=5)+PWG(*)",
        "DW+PWG(*)+PWG(2)+PWG(*)@1/2",
        "GC(q=4)+PWG(*)",
    ],
)
def test_the_file_finds_the_group_numbers_of_the_theorem_at_every_width(
    text: str, tmp_path: Path
) -> None:
    module = exported(Candidate(parse(text), (1,)).sized(Task((1, 8, 8), 2), 16), tmp_path)
    found = 0
    with torch.device("meta"):
        for c in range(1, 65):
            for f in {c, 2 * c}:
                if module.fits(c, f):
                    expected = structure(parse(text), c, f, 1)
                    assert repr(module.Block(c, f).body) == expected, (c, f)
                    found += 1
    assert found > 30


@pytest.mark.parametrize(
    "text",
    [
        "PWG(4)+DW+PWG(4)@1/4",
        "GC(q=4,k=5)+PWG(q=8)",
        "PWG(q=4)+DW+PWG(q=4)@1/2",
        "PWG(3)+PW+GC(7)@3/2",
        "DW",
    ],
)
def test_a_width_that_cannot_be_is_refused_with_valid_ones(text: str, tmp_path: Path) -> None:
    candidate = Candidate(parse(text), (1,))
    module = exported(candidate.sized(Task((1, 8, 8), 2), 3 * 7 * 16), tmp_path)
    refused = [
        widths
        for widths in [(30, 30), (29, 58), (2, 2), (0, 16), (-4, -4), (1, 97), (0, 0)]
        if not module.fits(*widths)
    ]
    assert len(refused) >= 4
    for widths in refused:
        with pytest.raises(ValueError, match="nearest valid are") as refusal:
            module.Block(*widths)
        asked, *valid = re.findall(r"Block\((-?\d+), (-?\d+)\)", str(refusal.value))
        assert asked == tuple(map(str, widths))
        assert valid
        for pair in valid:
            c, f = map(int, pair)
            assert module.Block(c, f)(torch.zeros(1, c, 3, 3)).shape == (1, f, 3, 3)
            assert c == widths[0] or f == widths[1] or c == f


def test_a_stride_below_1_is_refused(tmp_path: Path) -> None:
    module = exported(named("DW+PW"), tmp_path)
    with pytest.raises(ValueError, match="stride of a Block is 0"):
        module.Block(4, 4, stride=0)


# ---- the file ------------------------------------------------------------------------------------


def test_the_file_runs_alone(tmp_path: Path) -> None:
    """In an isolated interpreter elsewhere, to which our packages are refused."""
    sized = named("GC(*)+PWG(*)")
    python, weights = export(sized, sized.module(0).state_dict(), tmp_path)
    probe = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("spaces", "analysis", "nas", "kernels", "safetensors"):
            raise ImportError(name + " is wanted")
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, {str(tmp_path)!r})
import {python.stem} as winner
print(sum(p.numel() for p in winner.load({str(weights)!r}).parameters()))
"""
    for command in (["-c", probe], [str(python)]):
        ran = subprocess.run(
            [sys.executable, "-I", *command], cwd=tmp_path, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        assert str(sized.cost.params) in ran.stdout


def test_the_file_imports_torch_and_the_standard_library_only(tmp_path: Path) -> None:
    for sized in WINNERS:
        text = export(sized, None, tmp_path)[0].read_text()
        imported = set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE))
        assert imported - {"torch"} <= set(sys.stdlib_module_names)
        assert "pickle" not in text


def test_the_files_are_in_good_style(tmp_path: Path) -> None:
    """Clean by the default rules of ruff and formatted by its defaults."""
    for sized in WINNERS:
        export(sized, None, tmp_path, facts={"accuracy": 0.9})
    for command in (["check"], ["format", "--check"]):
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", str(tmp_path)],
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("sized", WINNERS[:: len(WINNERS) // 12], ids=str)
def test_the_docstring_states_specification_costs_field_and_facts(
    sized: Sized, tmp_path: Path
) -> None:
    facts = {"accuracy": 0.9125, "test_accuracy": 0.875, "data": 'a\\b """ of "mine"'}
    text = loaded(export(sized, None, tmp_path, facts=facts)[0]).__doc__
    rows = dict(re.findall(r"^    (\S+(?: \S+)?) {2,}(.+)$", text, re.MULTILINE))
    cost = network_cost(sized.network)
    assert rows["design"] == str(sized.candidate.design)
    assert rows["blocks"] == "-".join(map(str, sized.candidate.blocks))
    assert rows["width"].split()[0] == str(sized.width)
    assert rows["params"] == str(cost.params)
    assert rows["mults"] == str(cost.mults)
    assert rows["adds"] == str(cost.adds)
    assert [int(n) for n in re.findall(r"\d+", rows["traffic"])] == [
        cost.traffic_bytes,
        cost.traffic_bytes_fused,
    ]
    assert rows["peak"].split()[0] == str(cost.peak_activation_bytes)
    assert "convention 'torch'" in text
    first = next(sized.network.blocks())
    assert first.design is not None
    seen = field(first.design, sized.width, sized.width)
    stated = next(value for key, value in rows.items() if key.startswith("stage1.1"))
    assert stated.startswith(f"{seen.size} {'complete' if seen.complete else ''}")
    assert rows["accuracy"] == "0.9125"
    assert rows["test_accuracy"] == "0.875"
    assert rows["data"] == facts["data"]


def test_the_json_form_gives_the_network_back(tmp_path: Path) -> None:
    for sized in WINNERS:
        (path,) = export(sized, None, tmp_path, "json", {"accuracy": 0.5})
        content = json.loads(path.read_text())
        assert Sized.from_dict(content["network"]) == sized
        assert content["cost"]["params"] == sized.cost.params
        assert content["cost"]["convention"] == "torch"
        assert content["facts"] == {"accuracy": 0.5}
        layers = [(layer["block"], layer["design"]) for layer in content["layers"]]
        assert layers == list(
            zip([part.name for part in sized.network.blocks()], sized.layers, strict=True)
        )


def test_names_can_be_imported_and_differ() -> None:
    stems = [file_stem(sized) for sized in WINNERS]
    assert all(stem.isidentifier() for stem in stems)
    assert len(set(stems)) == len({(str(s.candidate), s.width) for s in WINNERS})


# ---- weights -------------------------------------------------------------------------------------


def test_weights_come_back_with_their_network(tmp_path: Path) -> None:
    sized = named("DW+PW")
    state = scrambled(sized).state_dict()
    path = export(sized, state, tmp_path)[1]
    again, tensors = read(path)
    assert again == sized
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in state)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    sized, other = named("DW+PW"), named("PW+PW@2")
    with pytest.raises(ValueError, match="the weights are not those of DW"):
        to_bytes(other.module().state_dict(), sized)
    python = export(sized, None, tmp_path)[0]
    weights = export(other, other.module().state_dict(), tmp_path)[1]
    with pytest.raises(ValueError, match="is of another network"):
        loaded(python).load(weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_short_reader_keeps_types(dtype: torch.dtype, tmp_path: Path) -> None:
    sized = named("DW+PW")
    state = sized.module(0).to(dtype).state_dict()
    python, weights = export(sized, state, tmp_path)
    network = loaded(python).load(weights)
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor, state[name])
    assert all(p.requires_grad for p in network.parameters())


def test_the_short_reader_reads_what_the_library_writes(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    tensors = {
        str(dtype): (torch.randn(3, 2) * 50).abs().to(dtype)
        for dtype in (
            *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
            *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
        )
    }
    tensors |= {"scalar": torch.tensor(3), "empty": torch.zeros(0, 4), "one": torch.ones(1, 1)}
    save_file(tensors, tmp_path / "x.safetensors", {"about": "anything"})
    found = exported(named("DW+PW"), tmp_path).read_safetensors(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
MALFORMED = {
    "empty": b"",
    "short": b"\x01\x00",
    "long header": struct.pack("<Q", 2**62) + b"{}",
    "not json": struct.pack("<Q", 4) + b"abcd",
    "a list": safetensors([1, 2]),
    "an entry that is a number": safetensors({"w": 3}),
    "no offsets": safetensors({"w": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "unknown type": safetensors({"w": ONE | {"dtype": "F7"}}, bytes(8)),
    "too little data": safetensors({"w": ONE}, bytes(7)),
    "too much data": safetensors({"w": ONE}, bytes(9)),
    "a gap": safetensors({"w": ONE | {"data_offsets": [4, 12]}}, bytes(12)),
    "negative": safetensors({"w": ONE | {"data_offsets": [-8, 0]}}, bytes(8)),
    "another shape": safetensors({"w": ONE | {"shape": [3]}}, bytes(8)),
    "a negative shape": safetensors({"w": ONE | {"shape": [-1, -2]}}, bytes(8)),
    "a shape of words": safetensors({"w": ONE | {"shape": "2"}}, bytes(8)),
    "deep": struct.pack("<Q", 10**5) + b"[" * 10**5,
    "a pickle": b"\x80\x04\x95" + bytes(40),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        exported(named("DW+PW"), tmp_path).read_safetensors(path)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read(path)


def test_no_damage_goes_unnoticed_or_ends_otherwise(tmp_path: Path) -> None:
    """Any byte of the header changed: a ValueError, or a network all the same."""
    sized = named("DW+PW")
    python, path = export(sized, sized.module(0).state_dict(), tmp_path)
    module, content, rng = loaded(python), path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.randrange(8 + struct.unpack_from("<Q", content)[0])] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            module.load(path)
        except ValueError:
            refused += 1
    assert refused > 50


# ---- refusals ------------------------------------------------------------------------------------


def test_the_formats_are_the_files_of_the_folder() -> None:
    assert set(formats()) == {"python", "json"}
    assert all(formats().values())


def test_an_unknown_format_is_refused_with_the_known(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"'onnx'; valid are json, python"):
        export(named("DW+PW"), None, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ExportError, match=r"cannot write to .*file"):
        export(named("DW+PW"), None, tmp_path / "file")
    with pytest.raises(ExportError, match=r"cannot write to .*file.*out"):
        export(named("DW+PW"), None, tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("failing", [1, 3])
def test_a_full_disk_leaves_nothing_half_written(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills while the first or the second file is written."""
    sized = named("DW+PW")
    calls, sync = 0, os.fsync

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="No space left"):
        export(sized, sized.module().state_dict(), tmp_path)
    assert not list(tmp_path.iterdir())
