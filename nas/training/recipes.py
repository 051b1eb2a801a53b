"""Schedules of real training, as data: the papers' own and ours.

    recipe("lean", "classification")  ->  Recipe(epochs=300, batch=64, learning_rate=0.05, ...)

A paper leaves things open; `open` names what is our choice in its recipe. Milestones are shares of
the training, so that another number of epochs keeps the form. Where a paper resizes an image and
crops it, the same is done here as one crop of a random area, enlarged to the size of the image; the
image is judged as a whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from nas.training.rates import Cosine, Plateau, Rate, Steps

Task = Literal["classification", "segmentation"]


@dataclass(frozen=True)
class Augment:
    """How training images vary; all zero is not at all.

    pad: a crop after padding each side with this share of it. area, aspect: a crop of a random
    share of the area and ratio of the sides. rotate: up to so many degrees either way. colour:
    brightness, contrast and saturation each times 1 - colour to 1 + colour. flip: left and right
    exchanged at random, where the mirror image keeps its label.
    """

    pad: float = 0.0
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (1.0, 1.0)
    rotate: float = 0.0
    colour: float = 0.0
    flip: bool = True


@dataclass(frozen=True)
class Recipe:
    """Everything that settles a training besides network, data and seed.

    `momentum` is beta_1 for "adam" and "adamw". `decay_vectors`: whether weight decay holds for
    biases and batch normalisation too. `focal` is the gamma of the focal loss, 0 for cross-entropy.
    """

    name: str
    source: str
    epochs: int
    batch: int
    optimiser: Literal["sgd", "adam", "adamw"]
    learning_rate: float
    rate: Rate
    augment: Augment
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_vectors: bool = True
    label_smoothing: float = 0.0
    focal: float = 0.0
    open: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        valid = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch": (self.batch >= 2, "at least 2"),
            "learning_rate": (0 < self.learning_rate < math.inf, "positive and finite"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "at least 0 and less than 1"),
            "focal": (0 <= self.focal < math.inf, "finite and not negative"),
        }
        for name, (fine, limits) in valid.items():
            if not fine:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {limits}")


HALF = Steps(((0.2, 0.5), (0.4, 0.25), (0.6, 0.125), (0.8, 0.0625)))
RESIZED = Augment(area=(0.25, 1.0), aspect=(3 / 4, 4 / 3))

CLASSIFICATION = {
    "leanfield": Recipe(
        "leanfield",
        "ours: SGD with one cosine, label smoothing (Szegedy et al. 2016, section 7), crops after "
        "padding (He et al. 2016, section 4.2)",
        epochs=100,
        batch=128,
        optimiser="sgd",
        learning_rate=0.1,
        rate=Cosine(),
        augment=Augment(pad=1 / 8),
        nesterov=True,
        weight_decay=5e-4,
        decay_vectors=False,
        label_smoothing=0.1,
    ),
    "fog": Recipe(
        "fog",
        "Penetrating the Fog, section 4.1; cropping of He et al. 2016, section 3.4: 224 pixels of "
        "a shorter side of 256 to 480",
        epochs=100,
        batch=256,
        optimiser="sgd",
        learning_rate=0.1,
        rate=Steps(((0.3, 0.1), (0.6, 0.01), (0.9, 0.001))),
        augment=Augment(area=((224 / 480) ** 2, (224 / 256) ** 2), colour=0.4),
        nesterov=True,
        weight_decay=1e-4,
        open=("strength and kind of the colour jitter",),
    ),
    "lean": Recipe(
        "lean",
        "LeanConvNets, section IV-A (TinyImageNet200)",
        epochs=300,
        batch=64,
        optimiser="sgd",
        learning_rate=0.05,
        rate=Steps(((0.25, 0.2), (0.5, 0.1), (0.75, 0.02))),
        augment=RESIZED,
        weight_decay=1e-4,
        open=("areas of the resized crop",),
    ),
    "lowcost": Recipe(
        "lowcost",
        "Low-cost parameterizations, section 4",
        epochs=300,
        batch=100,
        optimiser="adam",
        learning_rate=0.01,
        rate=HALF,
        augment=RESIZED,
        open=("areas of the resized crop",),
    ),
    "factorized": Recipe(
        "factorized",
        "Factorized Convolutional Neural Networks, section 3: crops of 221 pixels from a shorter "
        "side of 256",
        epochs=100,
        batch=256,
        optimiser="sgd",
        learning_rate=0.1,
        rate=Plateau(patience=5, watched="train_loss"),
        augment=Augment(area=((221 / 256) ** 2, (221 / 256) ** 2)),
        open=("epochs", "momentum", "what a plateau is", "dropout of 0.2, left to the network"),
    ),
}

SEGMENTATION = {
    "leanfield": Recipe(
        "leanfield",
        "ours: AdamW with one cosine and the focal loss",
        epochs=100,
        batch=16,
        optimiser="adamw",
        learning_rate=2e-3,
        rate=Cosine(),
        augment=Augment(pad=1 / 8),
        weight_decay=1e-2,
        decay_vectors=False,
        focal=2.0,
    ),
    "lean": Recipe(
        "lean",
        "LeanConvNets, section IV-B",
        epochs=300,
        batch=8,
        optimiser="adam",
        learning_rate=1e-4,
        rate=Plateau(patience=5, watched="score"),
        augment=Augment(rotate=10.0),
        weight_decay=0.01,
        focal=2.0,
        open=("epochs", "gamma of the focal loss"),
    ),
}

RECIPES: dict[Task, dict[str, Recipe]] = {
    "classification": CLASSIFICATION,
    "segmentation": SEGMENTATION,
}


def recipe(
    name: str,
    task: Task,
    *,
    epochs: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
) -> Recipe:
    """The recipe of this name for this task, with what is given in place of its own.

    Raises ValueError for a name that this task does not have and for values out of range.
    """
    known = RECIPES[task]
    if name not in known:
        elsewhere = ", which is for another task" if name in CLASSIFICATION else ""
        raise ValueError(f"no recipe {name!r} for {task}{elsewhere}; valid are {', '.join(known)}")
    chosen = known[name]
    return replace(
        chosen,
        epochs=chosen.epochs if epochs is None else epochs,
        batch=chosen.batch if batch is None else batch,
        learning_rate=chosen.learning_rate if learning_rate is None else learning_rate,
    )
