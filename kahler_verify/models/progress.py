"""A progress bar for training, with the live terms of the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from kahler_verify.models.training import Progress as Epoch


@contextmanager
def training_bar(console: Console) -> Iterator[Callable[[Epoch], None]]:
    """A bar that the returned callback moves, once for each epoch."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.fields[epoch]}  {task.fields[terms]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=None, epoch="first epoch", terms="")

        def move(epoch: Epoch) -> None:
            terms = (
                f"loss {epoch.loss:.2f}  log p(x|z) {epoch.log_likelihood:.2f}  "
                f"KL {epoch.divergence:.2f}"
            )
            if epoch.log_density is not None:
                terms += f"  log density {epoch.log_density:.2f}"
            if epoch.held_out_loss is not None:
                terms += f"  held out {epoch.held_out_loss:.2f} (best: epoch {epoch.best_epoch})"
            bar.update(
                task,
                completed=epoch.epoch,
                total=epoch.epochs,
                epoch=f"epoch {epoch.epoch}/{epoch.epochs}",
                terms=terms,
            )

        yield move
