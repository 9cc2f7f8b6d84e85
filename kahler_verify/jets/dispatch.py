"""What a jet answers to a torch function: its rule, or the Python code it is composed of."""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType, FunctionType
from typing import Any

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.jets.opaque import by_autograd
from kahler_verify.jets.tensor import Jet
from kahler_verify.rules import Expansion, NotCovered, find
from kahler_verify.rules.expansion import linear, real_directions
from kahler_verify.rules.registry import canonical
from kahler_verify.rules.shapes import replaced

__all__ = ["dispatch"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What is asked of a tensor's outside: of its shape and kind, of which no numbers have to be known,
_OUTSIDE = _names("size dim ndimension numel nelement element_size is_floating_point is_complex")
_OUTSIDE_PROPERTIES = _names("shape ndim dtype device layout is_cuda is_cpu itemsize nbytes")
# and of how they lie in memory.
_QUERIES = _OUTSIDE | _names(
    """
    is_contiguous stride storage_offset get_device is_signed is_inference is_conj is_neg is_shared
    is_same_size result_type has_names
    """
)
_TENSOR_PROPERTIES = _names("T mT H mH real imag")
_STOPPING = _names("detach item tolist __float__ __int__ __complex__ __index__")
_REFUSED = _names(
    """
    backward register_hook retain_grad numpy __array__ __dlpack__ data_ptr storage
    untyped_storage apply_ map_ resize_ resize_as_ set_ share_memory_ __reduce_ex__ detach_
    to_sparse
    """
)
_MAY_BE_VIEWS = _names(
    """
    view reshape flatten unflatten ravel squeeze unsqueeze transpose permute movedim t T mT H mH
    expand broadcast_to diagonal unfold select narrow unbind tensor_split hsplit vsplit dsplit
    chunk split split_with_sizes __getitem__ view_as reshape_as expand_as real imag conj
    view_as_real view_as_complex broadcast_tensors
    """
)
_IN_PLACE_OPERATORS = {
    f"__i{name}__": getattr(Tensor, f"__{name}__")
    for name in ("add", "sub", "mul", "truediv", "pow")
}
_APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]
_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


def dispatch(call: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The outcome of ``call`` on jets."""
    name = getattr(call, "__name__", "")
    if name == "__get__":
        return _property(call.__self__.__name__, arguments[0])  # type: ignore[attr-defined]
    if name in _OUTSIDE and arguments:
        return call(arguments[0].expansion.outside, *arguments[1:], **named)
    if name in _QUERIES:
        return call(*_values(arguments), **{k: _values(v) for k, v in named.items()})
    if name == "__bool__" or name == "is_nonzero":
        jet = arguments[0]
        jet.record.branches[name] += 1
        return bool(jet.value)
    if name in _STOPPING:
        (jet,) = arguments[:1]
        if jet.expansion.varies:
            _require_followed(name)
            jet.record.stopped[name] += 1
        return call(jet.value, *arguments[1:], **named)
    if name in _REFUSED or name == "__set__":
        raise InputError(f"expected a module to compute with torch alone, but it calls {name}")
    if isinstance(call, torch.ScriptFunction | torch._C.ScriptMethod):
        raise InputError(
            f"expected the module to call torch's functions from Python, but {name} is compiled by "
            "TorchScript, where derivatives cannot be followed: give the module itself"
        )
    if named.get("out") is not None:
        raise InputError(f"{name}: expected the result to be returned, not written to out=…")
    if isinstance(call, FunctionType):
        rule = find(name)
        method = call.__module__ == "torch._tensor"
        known = rule is not None and (rule.python or method)
        if not known and call not in _opening():
            return _opened(call, arguments, named)
    if name in _IN_PLACE_OPERATORS or name == "__setitem__" or _writes(name):
        return _in_place(call, name, arguments, named)
    return _out_of_place(call, name, arguments, named)


def _require_followed(name: str) -> None:
    """Derivatives end here as in autograd, but not where a function has a backward of its own."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is _APPLY:
            raise InputError(
                f"expected a module whose functions can be followed, but {name} is called in "
                f"{frame.f_locals['cls'].__name__}, a torch.autograd.Function, whose own backward "
                "is not: write it in torch's operations"
            )
        frame = frame.f_back


def _writes(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _property(name: str, jet: Jet) -> Any:
    if name in _TENSOR_PROPERTIES:
        return _out_of_place(_Property(name), name, (jet,), {})
    if name == "data":
        return dispatch(Tensor.detach, (jet,), {})
    return getattr(jet.expansion.outside if name in _OUTSIDE_PROPERTIES else jet.value, name)


class _Property:
    """A property as the function that it is."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, x: Tensor) -> Any:
        return getattr(x, self.__name__)


def _out_of_place(
    call: Callable[..., Any], name: str, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    inner, inner_named = _expansions(arguments), {k: _expansions(v) for k, v in named.items()}
    met = list(_met((*inner, *inner_named.values())))
    record = met[0].frame.record
    if not torch.is_grad_enabled() and record.gradients_wanted:
        record.opaque_gradients[canonical(name)] += 1
    rule = find(name)
    out: Any = NotImplemented
    if rule is not None and rule.covers(inner, inner_named):
        if not rule.holomorphic:
            inner, inner_named = _mapped((inner, inner_named), real_directions)
        with contextlib.suppress(NotCovered):
            out = rule.function(call, *inner, **inner_named)
    if out is NotImplemented:
        inner, inner_named = _mapped((inner, inner_named), real_directions)
        out = by_autograd(call, canonical(name), inner, inner_named)
    if any(not _continuous(x.outside) for x in met) and any(
        _continuous(x.outside) for x in _met(_tupled(out))
    ):
        record.kink(canonical(name), -1)  # truth values became numbers
    if len(met) == 1 and out is met[0]:
        return next(_jets((*arguments, *named.values())))
    wrapped = _wrapped(out)
    if canonical(name) in _MAY_BE_VIEWS and isinstance(arguments[0], Jet):
        _note_views(arguments[0], wrapped, call, arguments[1:], named)
    return wrapped


def _continuous(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _tupled(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, tuple | list) else (x,)


# Jets and expansions in nested arguments


def _values(argument: Any) -> Any:
    if isinstance(argument, tuple | list):
        return type(argument)(_values(a) for a in argument)
    return argument.value if isinstance(argument, Jet) else argument


def _expansions(argument: Any) -> Any:
    if isinstance(argument, Jet):
        return argument.expansion
    if isinstance(argument, tuple | list) and not isinstance(argument, torch.Size):
        return type(argument)(_expansions(a) for a in argument)
    return argument


def _mapped(argument: Any, f: Callable[[Expansion], Expansion]) -> Any:
    if isinstance(argument, Expansion):
        return f(argument)
    if isinstance(argument, dict):
        return {k: _mapped(v, f) for k, v in argument.items()}
    if isinstance(argument, tuple | list) and not isinstance(argument, torch.Size):
        return type(argument)(_mapped(a, f) for a in argument)
    return argument


def _met(arguments: Any) -> Any:
    for argument in arguments:
        if isinstance(argument, Expansion):
            yield argument
        elif isinstance(argument, tuple | list):
            yield from _met(argument)


def _jets(arguments: Any) -> Any:
    for argument in arguments:
        if isinstance(argument, Jet):
            yield argument
        elif isinstance(argument, tuple | list):
            yield from _jets(argument)


def _wrapped(out: Any) -> Any:
    if isinstance(out, Expansion):
        return Jet(out)
    if isinstance(out, tuple | list) and not isinstance(out, torch.Size):
        parts = [_wrapped(each) for each in out]
        plain = type(out) in (tuple, list) or not hasattr(out, "_fields")
        return type(out)(parts) if plain else type(out)(*parts)
    return out


# Writing in place


def _note_views(
    jet: Jet, out: Any, call: Callable[..., Any], rest: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """What shares memory with a jet, in torch, so that writing into one is seen in the other."""
    rest, named = _values(rest), {k: _values(v) for k, v in named.items()}
    for k, view in enumerate(_tupled(out)):
        if isinstance(view, Jet) and _shares_memory(view.value, jet.value):
            part = k if isinstance(out, tuple | list) else None
            view._origin = (jet, partial(_view, call, rest, named, part))
            jet._views.append(weakref.ref(view))


def _view(
    call: Callable[..., Any], rest: tuple[Any, ...], named: dict[str, Any], part: Any, t: Tensor
) -> Tensor:
    out = call(t, *rest, **named)
    return out if part is None else out[part]


def _shares_memory(a: Tensor, b: Tensor) -> bool:
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True  # what has no memory to look at is taken to share it
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _write(target: Jet, new: Expansion) -> None:
    """Give a jet what was computed, and let it be seen in all that shares its memory."""
    target.expansion = new
    root = target
    while root._origin is not None:
        parent, view = root._origin

        def put(t: Tensor, n: Tensor, view: Callable[[Tensor], Tensor] = view) -> Tensor:
            out = t.clone()
            view(out).copy_(n)
            return out

        parent.expansion = replaced(parent.expansion, root.expansion, put)
        root = parent
    _refresh(root)


def _refresh(jet: Jet) -> None:
    for view in (reference() for reference in jet._views):
        if view is not None and view._origin is not None:
            view.expansion = linear(view._origin[1], jet.expansion)
            _refresh(view)


def _in_place(
    call: Callable[..., Any], name: str, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    """The jet is given what the call returns."""
    target = arguments[0]
    if not isinstance(target, Jet):
        raise InputError(
            f"{name}: expected what varies with z to be written into a tensor that varies, but the "
            "target is a plain tensor: join pieces by torch.cat or torch.stack, or make the target "
            "by new_zeros of one that varies"
        )
    if name == "__setitem__":
        new = _out_of_place(call, name, arguments, named)
    elif name in ("zero_", "fill_"):
        value = torch.zeros_like(target.value)
        filled = value if name == "zero_" else value.fill_(*arguments[1:], **named)
        new = Jet(target.expansion.constant(filled))
    elif name == "copy_":
        new = _out_of_place(Tensor.__setitem__, "__setitem__", (target, ..., arguments[1]), {})
    else:
        plain = _IN_PLACE_OPERATORS.get(name) or _returning(name)
        new = dispatch(plain, arguments, named)
    if new.value.shape != target.value.shape or new.value.dtype != target.value.dtype:
        raise InputError(
            f"{name}: expected a result of shape {tuple(target.value.shape)} and "
            f"{target.value.dtype}, got {tuple(new.value.shape)} and {new.value.dtype}"
        )
    _write(target, new.expansion)
    return None if name == "__setitem__" else target


def _returning(name: str) -> Callable[..., Any]:
    """The function that returns what another one writes in place."""
    for owner in (Tensor, torch, torch._C._nn):
        found = getattr(owner, name[:-1], None)
        if found is not None:
            return found
    if find(name) is not None:  # refused by its rule
        return getattr(Tensor, name)
    raise InputError(f"{name}: writing in place is not known; write out of place instead")


# Functions that torch composes of others


_OPENED: dict[FunctionType, Callable[..., Any]] = {}
_STATE = threading.local()


def _opening() -> list[FunctionType]:
    """The functions whose bodies are being run: some ask again in a second body."""
    if not hasattr(_STATE, "opening"):
        _STATE.opening = []
    return _STATE.opening


def _opened(function: FunctionType, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """A Python function of torch's without its question whether a subclass wants to answer."""
    if function not in _OPENED:
        _OPENED[function] = _body(function)
    _opening().append(function)
    try:
        return _OPENED[function](*arguments, **named)
    finally:
        _opening().pop()


def _body(function: FunctionType) -> Callable[..., Any]:
    scope = function.__globals__
    if not any(check in scope for check in _CHECKS):
        raise InputError(
            f"{function.__module__}.{function.__name__}: expected one of torch's functions"
        )
    body = FunctionType(
        function.__code__,
        {**scope, **dict.fromkeys(_CHECKS, _no)},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    body.__kwdefaults__ = function.__kwdefaults__
    return body


def _no(*_: Any) -> bool:
    return False
