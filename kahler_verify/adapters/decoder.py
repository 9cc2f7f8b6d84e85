"""A model as a function from rows of latents to what likelihoods are read from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kahler_verify.adapters.models import decoding_part
from kahler_verify.adapters.outputs import Output, output_of, read
from kahler_verify.adapters.quantised import dequantised
from kahler_verify.errors import InputError
from kahler_verify.torch_state import alone

__all__ = ["AdaptedDecoder", "adapted", "described"]


def adapted(
    model: Any,
    output: Output | str | int | Callable[[Any], Any] | None = None,
    latent_shape: tuple[int, ...] | None = None,
) -> Any:
    """The model as a decoder of rows z [B, d]; itself, where it is one as it stands.

    Args:
        model: a module, a function, or a whole model of diffusers, pythae or Lightning.
        output: which of several tensors it returns, and of which law: see :class:`Output`.
        latent_shape: of one latent; a row is reshaped to it.  Models that know it need not be told.

    Raises:
        InputError: an argument is malformed, or the model rounds its latents.
    """
    shape = _shape(latent_shape)
    if isinstance(model, AdaptedDecoder):
        if output is not None or shape not in (None, model.latent_shape):
            raise InputError("decoder: it is adapted already: say output and latent_shape once")
        return model
    original = _original(model)
    part = decoding_part(original)
    which = None if output is None else output_of(output)
    compiled = original is not model or _has_compiled_parts(original)
    plain = dequantised(original)
    low = _low_precision(plain)
    if part is None and plain is original and not (which or shape or compiled or low):
        return model
    notes = [] if part is None else [part.note]
    call: Callable[[Any, Tensor], Any] = _called if part is None else part.call
    if part is not None:
        which, shape = which or part.output, shape or part.latent_shape
    if compiled:
        notes.append("compiled code is run uncompiled")
    if low:
        notes.append(f"{', '.join(low)} weights, computed in the precision of z")
    if plain is not original:
        notes.append("integer weights, as the numbers they stand for; activations are not rounded")
    return AdaptedDecoder(plain, call, which, shape, tuple(notes))


def described(decoder: Any) -> list[str]:
    """How a decoder is called and read, a line each."""
    name = getattr(decoder, "__name__", type(decoder).__name__)
    return decoder.lines() if isinstance(decoder, AdaptedDecoder) else [name]


def _called(model: Any, z: Tensor) -> Any:
    return model(z)


class _Call(nn.Module):
    """A module with the call that is meant as its forward, so that its weights may be exchanged."""

    def __init__(self, model: nn.Module, call: Callable[[Any, Tensor], Any]):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, z: Tensor) -> Any:
        return self.call(self.model, z)


class AdaptedDecoder(nn.Module):
    """From z [B, d] to a tensor, a pair or a distribution, whatever the model takes and returns.

    Attributes:
        latent_shape: that rows are reshaped to; None where the model takes rows.
        output: which tensor of what is returned, and its law; None where that is clear.
        notes: what is called, and how, in words.
    """

    def __init__(
        self,
        model: Any,
        call: Callable[[Any, Tensor], Any],
        output: Output | None,
        latent_shape: tuple[int, ...] | None,
        notes: tuple[str, ...],
    ):
        super().__init__()
        self._module = _Call(model, call) if isinstance(model, nn.Module) else None
        self._function = None if isinstance(model, nn.Module) else model
        self.output, self.latent_shape, self.notes = output, latent_shape, notes
        self._low = bool(_low_precision(model))
        self._compiled = _has_compiled_parts(model)

    @property
    def model(self) -> Any:
        """What was handed over, without what compiles it."""
        return self._function if self._module is None else self._module.model

    def lines(self) -> list[str]:
        """How the model is called and read."""
        first = [] if self.notes else [getattr(self.model, "__name__", type(self.model).__name__)]
        shape = [] if self.latent_shape is None else [f"latents {list(self.latent_shape)}"]
        return [*first, *self.notes, *shape, *([] if self.output is None else [str(self.output)])]

    def forward(self, z: Tensor) -> Any:
        """The law at z [B, d]."""
        z = self._shaped(z)
        with _uncompiled() if self._compiled else nullcontext():
            return read(self._of(z), self.output)

    def _of(self, z: Tensor) -> Any:
        module = self._module
        if module is None:
            assert self._function is not None
            return self._function(z)
        if not self._low:
            return module(z)
        real, kind = z.dtype.to_real(), z.dtype.to_complex()
        weights = {
            name: x.to(kind if x.is_complex() else real) if _floats(x) else x
            for name, x in (*module.named_parameters(), *module.named_buffers())
        }
        with alone():  # the module's own weights stand aside
            return functional_call(module, weights, (z,))

    def _shaped(self, z: Tensor) -> Tensor:
        if self.latent_shape is None:
            return z
        wanted = math.prod(self.latent_shape)
        if z.shape[-1] != wanted:
            raise InputError(
                f"z: expected rows of {wanted} numbers, latents {list(self.latent_shape)}, "
                f"got {list(z.shape)}"
            )
        return z.unflatten(-1, self.latent_shape) if len(self.latent_shape) > 1 else z

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AdaptedDecoder:
        if self._module is None:
            name = type(self._function).__name__
            raise InputError(
                f"decoder: expected a module to move or to cast, got {name}; move what it closes "
                "over instead"
            )
        moved: AdaptedDecoder = super()._apply(fn, recurse)
        moved._low = bool(_low_precision(moved.model))
        return moved


def _shape(latent_shape: Any) -> tuple[int, ...] | None:
    if latent_shape is None:
        return None
    whole = isinstance(latent_shape, tuple | list | torch.Size) and all(
        isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in latent_shape
    )
    if not whole or not latent_shape:
        raise InputError(
            f"latent_shape: expected whole numbers > 0 such as (4, 32, 32), got {latent_shape!r}"
        )
    return tuple(latent_shape)


def _floats(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _low_precision(model: Any) -> list[str]:
    """The names of dtypes of weights that are for storage: those of fewer than 32 bits."""
    if not isinstance(model, nn.Module):
        return []
    weights = [x for x in (*model.parameters(), *model.buffers()) if _floats(x)]
    kinds = {x.dtype for x in weights if x.dtype.to_real().itemsize < 4}
    return sorted(str(kind).removeprefix("torch.") for kind in kinds)


# Compiled code has no derivatives that jets could follow: it is run as the Python it was made of


def _original(model: Any) -> Any:
    """What ``torch.compile`` was given."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None:
            inner = getattr(model, "_torchdynamo_orig_callable", None)
        if inner is None:
            return model
        model = inner


def _has_compiled_parts(model: Any) -> bool:
    if not isinstance(model, nn.Module):
        return False
    return any(
        hasattr(each, "_orig_mod") or getattr(each, "_compiled_call_impl", None) is not None
        for each in model.modules()
    )


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Torch's compiler belongs to the process, and stands aside."""
    if torch.compiler.is_compiling():
        yield
        return
    with alone(), torch.compiler.set_stance("force_eager"):
        yield
