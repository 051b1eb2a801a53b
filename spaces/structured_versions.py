"""The structured versions of known networks: which convolution keeps which c and n.

The paper prints counts alone, and says that versions A compress every layer about twice, versions
B the later stages four times (section 6.1); the layer by layer configurations are our reading.
Those of Struct-18-A, 20-A, 32-A, 34-A and HR-A reproduce the printed counts and are natural; the
others are one of several that come near (`analysis.published` says which), and 50-A comes no
nearer than 2 %.

Source: Structured Convolutions (Bhalgat et al. 2020), Tables 1 to 3 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping

Version = tuple[str, tuple[str, ...]]
"""A configuration of the layout, and the rules of `spaces.slots` that make it structured."""

# 3 x 3 kernels: 2.25 times fewer weights, 4 times, 4.5 times
TWICE, FOUR, MORE = "STRUCT(c=1,n=2)", "STRUCT(c=9/16,n=2)", "STRUCT(c=1/2,n=2)"


def point(share: str) -> str:
    """A 1 x 1 convolution or dense layer that keeps this share of its inputs."""
    return f"STRUCT(k=1,c={share},n=1)"


HALF, EIGHTHS, MOST = point("1/2"), point("5/8"), point("3/4")

RESNETS: Mapping[str, Version] = {
    "Struct-20-A": ("20", (f"stage*.conv?={TWICE}", "stage2.1.conv?=STD")),
    "Struct-20-B": (
        "20",
        (
            "stem=STRUCT(c=1,n=2)",
            f"stage*.conv?={MORE}",
            f"stage2.1.conv?={TWICE}",
            f"stage2.2.conv1={TWICE}",
        ),
    ),
    "Struct-32-A": (
        "32",
        (f"stage*.conv?={TWICE}", "stage1.1.conv?=STD", "stage[23].1.conv1=STD"),
    ),
    "Struct-32-B": (
        "32",
        (
            "stem=STRUCT(c=2/3,n=3)",
            f"stage*.conv?={MORE}",
            f"stage1.[1-4].conv?={FOUR}",
            f"stage1.5.conv?={TWICE}",
            f"stage2.1.conv?={TWICE}",
        ),
    ),
    "Struct-56-A": (
        "56",
        (
            "stem=STRUCT(c=2/3,n=2)",
            f"stage*.conv?={TWICE}",
            "stage1.9.conv2=STD",
            "stage2.[12].conv?=STD",
        ),
    ),
    "Struct-56-B": (
        "56",
        (
            f"stage*.conv?={MORE}",
            f"stage1.?.conv?={FOUR}",
            f"stage2.[12].conv?={FOUR}",
            f"stage2.[345].conv?={TWICE}",
            f"stage2.6.conv1={TWICE}",
        ),
    ),
    "Struct-18-A": ("18", (f"stage*.conv?={TWICE}",)),
    "Struct-18-B": (
        "18",
        (
            "stem=STRUCT(k=7,c=1,n=4)",
            f"stage1.*={TWICE}",
            "stage2.?.conv?=STRUCT(c=1/2,n=3)",
            f"stage[34].?.conv?={MORE}",
            f"stage[23].1.shortcut={HALF}",
            f"stage4.1.shortcut={point('1/4')}",
        ),
    ),
    "Struct-34-A": (
        "34",
        (f"stage*.conv?={TWICE}", f"stage2.1.shortcut={HALF}", f"head={HALF}"),
    ),
    "Struct-34-B": (
        "34",
        (f"stage*.conv?={MORE}", f"stage2.?.conv?={TWICE}", f"stage*.shortcut={MOST}"),
    ),
    "Struct-50-A": (
        "50",
        (
            f"stage*.conv2={TWICE}",
            f"stage*.conv3={HALF}",
            f"stage*.shortcut={HALF}",
            f"stage[34].*.conv1={HALF}",
        ),
    ),
    "Struct-50-B": (
        "50",
        (
            f"stage*.conv1={point('1/8')}",
            f"stage[12].*.conv2={MORE}",
            "stage[34].*.conv2=STRUCT(c=1/4,n=3)",
            f"stage[12].*.conv3={MOST}",
            f"stage[34].*.conv3={point('1/8')}",
            f"head={MOST}",
        ),
    ),
}

HRNETS: Mapping[str, Version] = {
    "Struct-HR-A": (
        "W18-Small-v2",
        (
            f"transition*={TWICE}",
            f"stage*.branch*={TWICE}",
            f"stage*.down*={TWICE}",
            f"stage*.up*={HALF}",
        ),
    ),
}

MOBILENETS: Mapping[str, Version] = {
    "Struct-V2-A": (
        "1.0",
        (
            f"block*.expand={HALF}",
            f"block1[4-7].expand={MOST}",
            f"block[123].project={HALF}",
            f"last={EIGHTHS}",
            f"head={EIGHTHS}",
        ),
    ),
    "Struct-V2-B": (
        "1.0",
        (
            f"block*.expand={MOST}",
            "block*.spatial=STRUCT(q=1,c=1,n=2)",
            f"block*.project={point('1/4')}",
            f"last={EIGHTHS}",
            f"head={HALF}",
        ),
    ),
}
