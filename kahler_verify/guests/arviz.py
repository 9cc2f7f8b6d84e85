"""Draws of chains as an InferenceData of ArviZ, for its plots, summaries and comparisons."""

from __future__ import annotations

import warnings
from typing import Any

from kahler_verify.errors import InputError
from kahler_verify.statistics.volume import Draws

__all__ = ["require_arviz", "to_inference_data"]


def require_arviz() -> Any:
    """The module.

    Raises:
        InputError: it is not installed.
    """
    try:
        with warnings.catch_warnings():  # of its next version
            warnings.simplefilter("ignore", FutureWarning)
            import arviz
    except ImportError as error:
        raise InputError(
            f"arviz: expected it to be installed (pip install 'kahler-verify[arviz]'), but {error}"
        ) from error
    return arviz


def to_inference_data(draws: Draws) -> Any:
    """An ``arviz.InferenceData``, with dimensions chain, draw and latent.

    Args:
        draws: of :func:`~kahler_verify.statistics.vectorised_chains`, of ``run_chains``, or of
            importance resampling, which is one chain of independent draws.

    Returns:
        Its ``posterior`` has the variable ``z`` of real latents, and ``z_real`` and ``z_imag`` of
        complex ones, since ArviZ's statistics want real numbers; ``sample_stats`` has the log
        density and what else the sampler says of each draw.  The sampler's own numbers (its step,
        the warm-up) are attributes of the posterior.

    Raises:
        InputError: ArviZ is not installed.
    """
    arviz = require_arviz()
    z = draws.by_chain.detach().cpu()
    parts = {"z_real": z.real, "z_imag": z.imag} if z.is_complex() else {"z": z}
    statistics = {name: x.detach().cpu().numpy() for name, x in draws.statistics.items()}
    with warnings.catch_warnings():  # many short chains are what vectorised ones are
        warnings.filterwarnings("ignore", "More chains", UserWarning)
        return arviz.from_dict(
            posterior={name: x.numpy() for name, x in parts.items()},
            sample_stats=statistics or None,
            dims={name: ["latent"] for name in parts},
            posterior_attrs=dict(draws.details),
        )
