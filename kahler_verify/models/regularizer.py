"""The log densities that a training may be regularised with."""

from collections.abc import Callable

from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.models.checkpoint import Model
from kahler_verify.models.real_vae import RealVAE
from kahler_verify.models.training_options import TrainingOptions

# At points [n, d], where the step's latents are [m, d]: a log density [n].
LogDensity = Callable[[Tensor, Tensor], Tensor]


def log_density_of(model: Model, options: TrainingOptions) -> LogDensity | None:
    """The log density that the options name, or None without a regularizer."""
    if options.regularizer == "none":
        return None
    if isinstance(model, RealVAE):
        return _log_volume_at_real_latents(model, options)
    name = {"log-volume": "log_volume", "logdet-hermitian": "log_det_hermitian"}
    quantity = name[options.regularizer]
    fisher = FisherMetric(model.decoder, check=False, validate_args=False)

    def of_fisher(points: Tensor, _: Tensor) -> Tensor:
        out: Tensor = getattr(fisher, quantity)(points)
        return out

    def of_mixture(points: Tensor, latents: Tensor) -> Tensor:
        from kahler_verify.statistics.proxy import closed_form_mixture  # loads scikit-learn

        centres = latents[-options.components :]
        mixture = closed_form_mixture(fisher, centres, detach=False)
        out: Tensor = getattr(mixture, quantity)(points)
        return out

    return of_fisher if options.metric == "fisher" else of_mixture


def _log_volume_at_real_latents(model: RealVAE, options: TrainingOptions) -> LogDensity:
    if options.regularizer != "log-volume" or options.metric != "fisher":
        raise InputError(
            "regularizer: expected log-volume of the Fisher metric at real latents, got "
            f"{options.regularizer} of {options.metric}"
        )
    metric = FisherRaoMetric(model.decoder, validate_args=False)

    def of_fisher(points: Tensor, _: Tensor) -> Tensor:
        return metric.log_volume(points)

    return of_fisher
