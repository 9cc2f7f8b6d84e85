"""A user's own model, made by a function that the user names: ``--module package.file:factory``.

The code that is named is run, as ``python -m`` would run it.  Checkpoints never name any.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kahler_verify.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from kahler_verify.fields.sources import Source
    from kahler_verify.geometry.riemannian import RiemannianMetric

MODULE_HELP = (
    "package.file:factory, a function of yours without arguments that returns a decoder, a model "
    "or a metric. Its code is run."
)
LATENTS_HELP = "What latents of --module are, 8 or 4,32,32, where it does not say so itself."


class UserModel(NamedTuple):
    """What a factory made, in double precision, with the shape of its latents."""

    name: str
    made: Any
    metric: RiemannianMetric
    shape: tuple[int, ...]

    @property
    def dimension(self) -> int:
        """Of the latents, in a row."""
        dimension = self.metric.space.dimension
        assert dimension is not None
        return dimension

    def draws(self, count: int) -> Tensor:
        """Latents from N(0, I), rows [count, d], the same in every run."""
        import torch

        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, self.dimension, dtype=torch.float64, generator=generator)


def require_one(checkpoint: Any, module: str | None) -> None:
    """A command is about a checkpoint, or about a user's model.

    Raises:
        InputError: it is told of both, or of none.
    """
    if (checkpoint is None) == (module is None):
        got = "none" if module is None else "both"
        raise InputError(f"checkpoint: expected a checkpoint or --module, got {got}")


def open_module(text: str, latents: str | None) -> UserModel:
    """Run a user's factory.

    Args:
        text: ``package.file:factory``.
        latents: the shape of a latent, as numbers with commas; None where the model says it.

    Raises:
        InputError: the name is no such, the factory fails, or what it returns is no decoder.
    """
    shape = _shape(latents)
    made = _made(text)
    metric = _in_double_precision(_metric(text, made, shape))
    if metric.space.dimension is None:
        raise InputError(
            f"latents: expected --latents with the shape of one latent, 8 or 4,32,32, as what "
            f"{text} returns does not say it"
        )
    own: tuple[int, ...] = getattr(metric, "latent_shape", None) or (metric.space.dimension,)
    user = UserModel(text, made, metric, own)
    _require_decoding(user)
    return user


def module_source(text: str, latents: str | None) -> Source:
    """A user's model as any process can make it; its file's text is part of what it is."""
    from functools import partial
    from hashlib import sha256

    from kahler_verify.fields.sources import Source

    metric = open_module(text, latents).metric
    file = getattr(sys.modules[text.partition(":")[0]], "__file__", None)
    content = Path(file).read_bytes() if file is not None else b""
    mark = sha256(content + f"{text} {latents}".encode()).hexdigest()
    return Source("module", text, mark, metric.space, partial(_module_metric, text, latents))


def _module_metric(text: str, latents: str | None) -> RiemannianMetric:
    return open_module(text, latents).metric


def _require_decoding(user: UserModel) -> None:
    """Decode one latent."""
    from kahler_verify.geometry.matrix_free import MatrixFreeMetric

    if not isinstance(user.metric, MatrixFreeMetric):
        return
    try:
        user.metric._letters(user.draws(1))
    except Exception as error:
        shape = list(user.shape)
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        raise InputError(
            f"module: what {user.name}() returned does not decode latents {shape}: {kind}{error}; "
            "do they have another shape? Say it with --latents"
        ) from error


def _shape(latents: str | None) -> tuple[int, ...] | None:
    if latents is None:
        return None
    parts = [part.strip() for part in latents.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(
            f"latents: expected whole numbers > 0 such as 8 or 4,32,32, got {latents!r}"
        )
    return tuple(map(int, parts))


def _made(text: str) -> Any:
    path, colon, name = text.partition(":")
    if not (colon and path and name and all(part.isidentifier() for part in path.split("."))):
        raise InputError(f"module: expected package.file:factory, got {text!r}")
    here = str(Path.cwd())
    if here not in sys.path:  # as ``python -m`` has it
        sys.path.insert(0, here)
    try:
        found = import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if path == missing or path.startswith(missing + "."):
            raise InputError(
                f"module: expected a module that can be imported from {here} or is installed, but "
                f"there is no {missing!r}"
            ) from error
        raise InputError(f"module: {path} cannot be imported: {error}") from error
    except Exception as error:
        raise InputError(
            f"module: {path} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    factory = getattr(found, name, None)
    if factory is None:
        there = sorted(n for n, x in vars(found).items() if callable(x) and n[0] != "_")
        raise InputError(
            f"module: {path} has no {name!r}; functions and classes there: "
            f"{', '.join(there[:12]) or 'none'}"
        )
    if not callable(factory):
        raise InputError(
            f"module: expected {text} to be a function without arguments, got a "
            f"{type(factory).__name__}"
        )
    try:
        return factory()
    except Exception as error:
        raise InputError(f"module: {text}() raised {type(error).__name__}: {error}") from error


def _metric(text: str, made: Any, shape: tuple[int, ...] | None) -> RiemannianMetric:
    """The Fisher-Rao metric of what was made, in double precision; a metric is one already."""
    from torch import nn

    from kahler_verify.geometry import FisherMetric, HermitianMetric
    from kahler_verify.geometry.fisher_rao import FisherRaoMetric
    from kahler_verify.geometry.riemannian import RiemannianMetric
    from kahler_verify.models.autoencoder import Autoencoder

    if isinstance(made, FisherMetric):
        made = made.on_real_latents
    if isinstance(made, HermitianMetric):
        raise InputError(
            f"module: expected {text}() to return a decoder or metric at real latents, got "
            f"{type(made).__name__}; return its riemannian()"
        )
    if isinstance(made, RiemannianMetric):
        return made
    if isinstance(made, Autoencoder):
        made = made.decoder
    if not callable(made):
        raise InputError(
            f"module: expected {text}() to return a decoder, a model or a metric, got "
            f"{type(made).__name__}"
        )
    if isinstance(made, nn.Module):
        made.eval()
    known = getattr(getattr(made, "config", None), "latent_dim", None)
    try:
        return FisherRaoMetric(
            made,
            known if isinstance(known, int) and shape is None else None,
            latent_shape=shape,
        )
    except InputError as error:
        raise InputError(f"module: what {text}() returned is no decoder: {error}") from error


def _in_double_precision(metric: RiemannianMetric) -> RiemannianMetric:
    """A copy with fixed weights; what is made of functions stays in the precision it has."""
    from torch import nn

    try:
        metric = metric.double()
    except InputError:
        return metric
    module = getattr(metric, "decoder", getattr(metric, "function", None))
    if isinstance(module, nn.Module):
        module.requires_grad_(False)
    return metric
