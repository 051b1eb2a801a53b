"""The command that trains a network in earnest."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from nas.files import RunError

if TYPE_CHECKING:
    from nas.training.rates import Epoch
    from nas.training.session import Outcome

Precision = Literal["float32", "bf16"]


def train(
    target: Annotated[
        str | None,
        Argument(
            metavar="[RUN]",
            help="a run folder, an exported .json file or a network such as 'UNet(small, DW+PW)'",
        ),
    ] = None,
    rank: Annotated[int | None, Option(min=1, help="which network of the run (1)")] = None,
    data: Annotated[
        str | None, Option(help="as for search, or segmentation:FOLDER; that of the run if absent")
    ] = None,
    recipe: Annotated[
        str | None, Option(help="leanfield, fog, lean, lowcost or factorized (leanfield)")
    ] = None,
    epochs: Annotated[int | None, Option(min=1, help="that of the recipe if absent")] = None,
    batch: Annotated[int | None, Option(min=2, help="that of the recipe if absent")] = None,
    learning_rate: Annotated[float | None, Option(help="that of the recipe if absent")] = None,
    flip: Annotated[
        bool | None,
        Option("--flip/--no-flip", help="mirror images too; known for CIFAR and STL-10, else no"),
    ] = None,
    device: Annotated[str | None, Option(help="cpu or cuda; cuda where there is one")] = None,
    precision: Annotated[
        str | None, Option(help="float32 or bf16; bf16 on a GPU, float32 on a CPU")
    ] = None,
    seed: Annotated[int | None, Option(min=0, help="settles weights, order and crops (0)")] = None,
    threads: Annotated[int | None, Option(min=1, help="threads on the CPU; all cores")] = None,
    tensorboard: Annotated[
        bool, Option("--tensorboard", help="log for TensorBoard too (needs leanfield[data])")
    ] = False,
    out: Annotated[Path | None, Option(help="the new folder of this training")] = None,
    resume: Annotated[Path | None, Option(help="go on with the training of this folder")] = None,
    as_json: Annotated[bool, Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Train a network for as long as it takes, with checkpoints."""
    from nas.training import session
    from nas.training_report import watching

    asked = {
        "data": data,
        "rank": rank,
        "recipe": recipe,
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "flip": flip,
        "device": device,
        "precision": precision,
        "seed": seed,
        "threads": threads,
        "tensorboard": tensorboard or None,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if resume is not None:
        if given or out or target:
            words = ["--" + name.replace("_", "-") for name in given]
            words += ["RUN"] * bool(target) + ["--out"] * bool(out)
            raise ValueError(
                f"--resume takes everything from {resume}; leave out {', '.join(words)}"
            )
        with watching(session.read_plan(resume).settled().epochs) as watch:
            outcome = session.resume(resume, watch)
    elif target is None:
        raise ValueError("say what to train: a run folder, an exported .json file or a network")
    else:
        plan, read = _plan(target, given)
        with watching(plan.settled().epochs) as watch:
            outcome = session.begin(plan, read, out or _new_folder(), watch)
    _told(outcome, as_json)


def _plan(target: str, given: dict[str, Any]) -> tuple[Any, Any]:
    """The plan and its data."""
    from nas.machine import cores
    from nas.training.recipes import recipe
    from nas.training.session import Plan, read_data, task_of
    from nas.training.subject import data_of, find

    data = given.get("data") or data_of(target)
    if data is None:
        raise RunError(f"{target} does not say which data to train on; add --data")
    task = task_of(data)
    device, precision = _device(given.get("device"), given.get("precision"))
    name = given.get("recipe", "leanfield")
    numbers = {name: given.get(name) for name in ("epochs", "batch", "learning_rate")}
    recipe(name, task, **numbers)  # before the data is read, which may take a while
    read = read_data(data)
    subject = find(target, given.get("rank", 1), read.shape, segmentation=task == "segmentation")
    plan = Plan(
        subject=subject.to_dict(),
        data=data,
        fingerprint=read.fingerprint,
        recipe=name,
        **numbers,
        seed=given.get("seed", 0),
        device=device,
        precision=precision,
        flip=given.get("flip", read.mirrors),
        threads=given.get("threads", cores()),
        tensorboard=given.get("tensorboard", False),
    )
    return plan, read


def _device(name: str | None, precision: str | None) -> tuple[str, Precision]:
    """Where to train and how. Raises ValueError for what is unknown or not there."""
    import torch

    available = torch.cuda.is_available()
    chosen = name or ("cuda" if available else "cpu")
    kind = chosen.split(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"no device {chosen!r}; valid are cpu, cuda and cuda:N")
    if kind == "cuda" and not available:
        raise ValueError(f"no device {chosen!r}: torch sees no GPU here; valid is cpu")
    if precision is None:
        return chosen, "bf16" if kind == "cuda" else "float32"
    if precision not in ("float32", "bf16"):
        raise ValueError(f"no precision {precision!r}; valid are float32 and bf16")
    return chosen, precision  # type: ignore[return-value]


def _new_folder() -> Path:
    """runs/train- and the time of day; a second one within the second gets a number."""
    name = Path("runs") / datetime.now().strftime("train-%Y%m%d-%H%M%S")
    folder, count = name, 1
    while folder.exists():
        count += 1
        folder = name.with_name(f"{name.name}-{count}")
    return folder


def _told(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        print(json.dumps(outcome.to_dict()))
        return
    print(f"{outcome.title}: {len(outcome.past)} of {outcome.epochs} epochs, {outcome.folder}")
    if outcome.best is not None:
        print(f"best on validation: {_figures(outcome.best)}")
    if outcome.files is None:
        print(f"stopped; go on with leanfield train --resume {outcome.folder}")
        return
    test = f"accuracy {100 * (outcome.test_accuracy or 0):.1f} %"
    if outcome.test_mean_iou is not None:
        test += f", mean IoU {100 * outcome.test_mean_iou:.1f} %"
    print(f"its weights on the test split: {test}")
    for path in outcome.files:
        print(path)


def _figures(epoch: Epoch) -> str:
    iou = f", mean IoU {100 * epoch.mean_iou:.1f} %" if epoch.mean_iou is not None else ""
    return f"epoch {epoch.epoch}, accuracy {100 * epoch.accuracy:.1f} %{iou}"
