"""What a person sees of a real training: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nas.report import console
from nas.training.rates import Epoch


@contextmanager
def watching(epochs: int) -> Iterator[Callable[[Epoch], None]]:
    """What to call after each of so many epochs; it writes to standard error."""
    to = console(stderr=True)
    if not to.is_terminal:
        yield lambda epoch: to.print(f"  {epoch.epoch}/{epochs} {line(epoch)}")
        return
    bar = Progress(
        TextColumn("epoch"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=to,
    )
    with bar:
        task = bar.add_task("", total=epochs)
        yield lambda epoch: bar.update(task, completed=epoch.epoch, description=line(epoch))


def line(epoch: Epoch) -> str:
    """`rate 0.05, loss 1.234, validation 56.7 %, 8.9 s`."""
    iou = f", mean IoU {100 * epoch.mean_iou:.1f} %" if epoch.mean_iou is not None else ""
    return (
        f"rate {epoch.learning_rate:.3g}, loss {epoch.train_loss:.4g}, "
        f"validation {100 * epoch.accuracy:.1f} %{iou}, {epoch.seconds:.1f} s"
    )
