"""Which tensor of what a model returns is meant, and the parameter of which law it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, NegativeBinomial, Poisson

from kahler_verify.adapters.types import is_of
from kahler_verify.errors import InputError

__all__ = ["LAWS", "Output", "in_torch", "known", "negative_binomial", "output_of", "read"]

Which = str | int | Callable[[Any], Any]
Law = str | Callable[[Any], Any]

LAWS: Mapping[str, Callable[[Tensor], Any]] = MappingProxyType(
    {
        "gaussian": lambda x: x,
        "bernoulli_logits": lambda x: Bernoulli(logits=x, validate_args=False),
        "bernoulli_probs": lambda x: Bernoulli(probs=x, validate_args=False),
        "categorical_logits": lambda x: Categorical(logits=x, validate_args=False),
        "poisson_rates": lambda x: Poisson(x, validate_args=False),
        "poisson_log_rates": lambda x: Poisson(x.exp(), validate_args=False),
    }
)
"""Laws by name, of one tensor: a Gaussian has unit variance, a categorical law its classes last."""


def negative_binomial(dispersion: Tensor | float) -> Callable[[Tensor], Distribution]:
    """The law of counts with a mean and the inverse dispersion θ, whose variance is μ + μ²/θ.

    Args:
        dispersion: θ > 0, [genes] or a number, which does not depend on z.

    Returns:
        From the mean [B, genes] to the law.
    """

    def law(mean: Tensor) -> Distribution:
        return _counts(mean, dispersion, mean)

    return law


def _counts(mean: Any, dispersion: Any, like: Tensor) -> Distribution:
    theta = dispersion if isinstance(dispersion, Tensor) else like.new_tensor(float(dispersion))
    if theta.dtype != like.dtype:
        theta = theta.to(like.dtype)
    return NegativeBinomial(theta, logits=mean.log() - theta.log(), validate_args=False)


@dataclass(frozen=True)
class Output:
    """One of the tensors that a model returns, and its law.

    Attributes:
        which: an attribute or a key, an index, or a function of the output.
        law: a name in :data:`LAWS`, or a function from the tensor to a torch distribution.
    """

    which: Which
    law: Law = "gaussian"

    def __post_init__(self) -> None:
        if isinstance(self.which, bool) or not (
            isinstance(self.which, str | int) or callable(self.which)
        ):
            raise InputError(
                "output: expected the name of an attribute or a key, an index, or a function of "
                f"what the decoder returns, got {self.which!r}"
            )
        if not (callable(self.law) or (isinstance(self.law, str) and self.law in LAWS)):
            raise InputError(
                f"output: expected a law out of {', '.join(LAWS)}, or a function from the tensor "
                f"to a distribution, got {self.law!r}"
            )

    def __str__(self) -> str:
        which = f"output {self.which!r}" if isinstance(self.which, str | int) else "a function"
        law = self.law if isinstance(self.law, str) else getattr(self.law, "__qualname__", "a law")
        return f"{which}, {law.split('.')[0]}"

    def of(self, output: Any) -> Any:
        """The law, of what a decoder returned."""
        found = self.which(output) if callable(self.which) else _part(output, self.which)
        if isinstance(found, Tensor):
            return LAWS[self.law](found) if isinstance(self.law, str) else self.law(found)
        if self.law != "gaussian":
            raise InputError(
                f"output: expected a tensor for the law {self.law!r}, got {type(found).__name__}"
            )
        return found  # a distribution, or a pair


def output_of(output: Any) -> Output:
    """What is named by an attribute, a key, an index or a function.

    Raises:
        InputError: it is none of these.
    """
    return output if isinstance(output, Output) else Output(output)


def _part(output: Any, which: str | int) -> Any:
    if isinstance(which, int):
        if isinstance(output, tuple | list) and -len(output) <= which < len(output):
            return output[which]
    elif isinstance(output, Mapping) and which in output:
        return output[which]
    elif hasattr(output, which):
        return getattr(output, which)
    raise InputError(
        f"output: the decoder returned no {which!r} but {_contents(output)}: name one of these"
    )


def _contents(output: Any) -> str:
    """What is in there, in words."""
    parts = _parts(output)
    if not parts:
        return f"a {type(output).__name__}"
    words = [f"{name!r} {_word(part)}" for name, part in parts.items()]
    return f"{type(output).__name__} with {', '.join(words)}"


def _parts(output: Any) -> Mapping[str | int, Any]:
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, tuple | list):
        return dict(enumerate(output))
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {each.name: getattr(output, each.name) for each in dataclasses.fields(output)}
    return {}


def _word(part: Any) -> str:
    return str(list(part.shape)) if isinstance(part, Tensor) else type(part).__name__


# What libraries return, by type


def known(output: Any) -> Any:
    """A library's output in torch's terms; what no library here returns stays as it is."""
    if is_of(output, "pythae", "ModelOutput"):
        return _part(output, "reconstruction")
    if is_of(output, "diffusers", "DecoderOutput"):
        return _part(output, "sample")
    return output


def in_torch(law: Distribution) -> Distribution:
    """A library's law as one of torch's with the same Fisher metric; others stay as they are.

    Raises:
        InputError: it is none whose metric is known.
    """
    if is_of(law, "scvi", "ZeroInflatedNegativeBinomial"):
        raise InputError(
            "decoder: the zero-inflated negative binomial is no exponential family, and its Fisher "
            "metric has no closed form; output= may give the negative binomial in it, "
            "negative_binomial(theta)(law.mu)"
        )
    if is_of(law, "scvi", "NegativeBinomial"):
        mean: Any = getattr(law, "mu", None)
        theta: Any = getattr(law, "theta", None)
        return _counts(mean, theta, mean)
    return law


def read(output: Any, which: Output | None) -> Any:
    """A tensor, a pair or a distribution, of what a decoder returned.

    Raises:
        InputError: it is none of these, and it is not said what of it is meant.
    """
    found = known(output) if which is None else which.of(output)
    pair = isinstance(found, tuple | list) and len(found) == 2
    if isinstance(found, Tensor | Distribution) or pair:
        return found
    raise InputError(
        "decoder: expected a tensor, a pair (mean, log variance) or a torch distribution, got "
        f"{_contents(found)}; say which with output=, a name, an index or a function"
    )
