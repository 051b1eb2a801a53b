"""The specification of a network, its costs and its fields, for other programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nas.candidates import Sized
from nas.exports import fields

NAME = "json"
ABOUT = "the specification, costs and fields; `nas.candidates.Sized.from_dict` reads `network`"
SUFFIX = ".json"


def render(sized: Sized, weights: str | None, facts: Mapping[str, Any]) -> str:
    content = {
        "network": sized.to_dict(),
        "layers": [
            {"block": name, "design": str(design), "channels": c, "out_channels": f}
            | {"field": seen.to_dict()}
            for name, design, c, f, seen in fields(sized)
        ],
        "cost": sized.cost.to_dict(),
        "facts": dict(facts),
        "weights": weights,
    }
    return json.dumps(content, indent=2) + "\n"
