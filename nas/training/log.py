"""The log of a training: CSV always, TensorBoard where asked for.

log.csv is written anew after each epoch, as a whole: a resumed training has each epoch once.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kernels.backends import MissingComponentError
from nas.files import write_atomically
from nas.training.rates import Epoch

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def write_csv(path: Path, past: Sequence[Epoch]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Epoch._fields)
    for epoch in past:
        writer.writerow(["" if value is None else value for value in epoch])
    write_atomically(path, text.getvalue().encode())


def tensorboard(folder: Path, done: int) -> SummaryWriter:
    """A writer into `folder` that hides what an interrupted training left after epoch `done`."""
    return writer_class()(str(folder), purge_step=done + 1)


def writer_class() -> type[SummaryWriter]:
    """Raises MissingComponentError without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingComponentError(
            f"--tensorboard needs TensorBoard, which is missing ({error}); "
            "pip install 'leanfield[data]', or leave it out: log.csv is always written"
        ) from error
    return SummaryWriter


def write_epoch(writer: SummaryWriter, epoch: Epoch) -> None:
    for name, value in epoch._asdict().items():
        if name != "epoch" and value is not None:
            writer.add_scalar(name, value, epoch.epoch)
    writer.flush()
