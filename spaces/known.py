"""Blocks of the literature, as designs: they compete in every search under the same budget."""

from __future__ import annotations

from typing import NamedTuple

from spaces.design import Design, parse


class Known(NamedTuple):
    """A published block: its design, the operators that a ReLU follows, and where it comes from."""

    name: str
    design: Design
    inner: tuple[int, ...]
    source: str


KNOWN = (
    Known("ResNet basic", parse("STD"), (), "He et al. 2016a; Penetrating the Fog, Table 4"),
    Known(
        "ResNet bottleneck",
        parse("PW+STD+PW@1/4"),
        (0, 1),
        "He et al. 2016a; Penetrating the Fog, Table 4",
    ),
    Known(
        "ResNeXt",
        parse("PW+GC(16)~+PW@1/2"),
        (0, 1),
        "Xie et al. 2017, cardinality 16; Penetrating the Fog, Table 4",
    ),
    Known("Xception", parse("DW+PW"), (), "Chollet 2016; Penetrating the Fog, Table 4"),
    Known("MobileNet", parse("DW+PW"), (0,), "Howard et al. 2017"),
    Known("MobileNetV2", parse("PW+DW+PW@6"), (0, 1), "Sandler et al. 2018"),
    Known(
        "ShuffleNet",
        parse("PWG(4)+DW+PWG(4)@1/4"),
        (0,),
        "Zhang et al. 2017, 4 groups; Penetrating the Fog, Table 4",
    ),
    Known(
        "LeanResNet",
        parse("LEAN(g=16,s=5)"),
        (),
        "Ephrath et al. 2020, LeanConvNets, section IV: 5-point stencil, 16 groups",
    ),
)
