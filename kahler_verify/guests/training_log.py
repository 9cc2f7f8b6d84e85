"""A look at a decoder's geometry while it is trained, by anybody's loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kahler_verify.errors import InputError
from kahler_verify.geometry.diagnosis import diagnose
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.large_diagnosis import SMALL, diagnose_spectrum

__all__ = ["GeometryLog", "lightning_callback"]


class GeometryLog:
    """Medians of log volume, condition, curvature and, at complex latents, the closedness defect.

    It is a plain callable for any loop: ``log(step)`` measures every so many steps, in evaluation
    mode and without a graph, and leaves the model in the mode that it found.

    Args:
        decoder: that is trained; what :class:`FisherMetric` takes.
        z: points [n, d] to look at, the same in every step; a few dozen are enough.
        every: steps between two looks.
        curvature: measure curvature too, which costs most; d is at most 32 with it.
        write: is given what was measured, ``{"geometry/log volume": …}``, and the step.
        options: of :class:`FisherMetric`, such as ``output`` and ``latent_shape``.

    Raises:
        InputError: an argument is malformed.
    """

    def __init__(
        self,
        decoder: Callable[[Tensor], Any],
        z: Tensor,
        *,
        every: int = 100,
        curvature: bool = False,
        write: Callable[[dict[str, float], int], Any] | None = None,
        **options: Any,
    ):
        if not isinstance(every, int) or every < 1:
            raise InputError(f"every: expected a number of steps ≥ 1, got {every!r}")
        self.metric = FisherMetric(decoder, check=False, **options)
        shape = self.metric.latent_shape
        if shape is not None and len(shape) > 1 and z.shape[1:] == shape:
            z = z.flatten(1)
        if z.ndim != 2 or not len(z):
            raise InputError(f"z: expected points [n, d] with n ≥ 1, got {list(z.shape)}")
        if curvature and z.shape[1] > SMALL:
            raise InputError(
                f"curvature: expected at most {SMALL} latent dimensions with it, got {z.shape[1]}"
            )
        self.decoder, self.z = decoder, z
        self.every, self.curvature, self.write = every, curvature, write

    def __call__(self, step: int) -> dict[str, float] | None:
        """What was measured at this step; None where nothing was, as it was no turn of it."""
        if step % self.every:
            return None
        found = self.measure()
        if self.write is not None:
            self.write(found, step)
        return found

    def measure(self) -> dict[str, float]:
        """Medians over the points, by name; NaN where a metric is degenerate."""
        with _evaluated(self.decoder):
            return {f"geometry/{name}": value for name, value in self._medians().items()}

    def _medians(self) -> Mapping[str, float]:
        z, metric = self.z, self.metric
        try:
            if z.is_complex():
                found = diagnose(metric, z, curvature=self.curvature)
            elif z.shape[-1] > SMALL:
                found = diagnose_spectrum(metric.on_real_latents, z)
            else:
                found = diagnose(metric.on_real_latents, z, curvature=self.curvature)
        except InputError as error:
            if "positive definite" not in str(error):
                raise
            return {"log volume": float("nan"), "degenerate": 1.0}
        medians = {q.name: q.summary()["median"] for q in found.quantities}
        return {**medians, "degenerate": 0.0}


@contextmanager
def _evaluated(decoder: Any) -> Iterator[None]:
    """Without dropout, and with fixed statistics of batches; afterwards each layer as it was."""
    layers = list(decoder.modules()) if isinstance(decoder, nn.Module) else []
    modes = [layer.training for layer in layers]
    with torch.no_grad():
        try:
            if isinstance(decoder, nn.Module):
                decoder.eval()
            yield
        finally:
            for layer, mode in zip(layers, modes, strict=True):
                layer.training = mode


def lightning_callback(log: GeometryLog) -> Any:
    """The same as a callback of Lightning's trainer, which logs by ``pl_module.log_dict``.

    Args:
        log: its ``every`` counts the trainer's global steps.

    Raises:
        InputError: Lightning is not installed.
    """
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError as error:
            raise InputError(
                "lightning: expected it to be installed (pip install lightning), but it is not"
            ) from error

    class GeometryCallback(Callback):
        """Measures behind a batch, on the turn of its log."""

        def on_train_batch_end(  # what else Lightning hands over is not looked at
            self,
            trainer: Any,
            pl_module: Any,
            outputs: Any,  # noqa: ARG002
            batch: Any,  # noqa: ARG002
            batch_idx: int,  # noqa: ARG002
        ) -> None:
            found = log(trainer.global_step)
            if found is not None:
                pl_module.log_dict(found)

    return GeometryCallback()
