"""Calling generated kernels by name: heads computed once, arguments matched, zeros filled in."""

from __future__ import annotations

import importlib
import inspect
import shutil
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.linear_algebra.planes import Image, Pairs

# Axes over the latent space of each kernel of a potential.
RANK = {"value": 0, "gradient": 1, "metric": 2, "metric_d": 3, "metric_db": 4}


class KernelSet:
    """The kernels of one generated module, called with whatever tensors are at hand by name.

    Args:
        module: a generated module, or the name of a shipped one ("fubini_study").
    """

    def __init__(self, module: ModuleType | SimpleNamespace | str):
        if isinstance(module, str):
            try:
                module = importlib.import_module(f"kahler_verify.kernels.{module}")
            except ModuleNotFoundError as error:
                raise InputError(
                    f"kernels: expected the name of a generated module, got {module!r}"
                ) from error
        if not hasattr(module, "__all__"):
            raise InputError(
                f"kernels: expected a generated module or its name, got {type(module).__name__}"
            )
        self.module = module
        self._arguments: dict[str, tuple[str, ...]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Shipped modules go by their name, a user's by their text."""
        module = self.module
        package, _, name = module.__name__.rpartition(".")
        if package == "kahler_verify.kernels":
            return KernelSet, (name,)
        if isinstance(module, ModuleType) or type(module) is SimpleNamespace:
            return _of_text, (module.__name__, text_of(module))
        return KernelSet, (module,)

    def __deepcopy__(self, memo: dict[int, Any]) -> KernelSet:
        """There is nothing in it to change."""
        return self

    def __contains__(self, name: str) -> bool:
        return hasattr(self.module, name) or name in self.vanishing

    @property
    def vanishing(self) -> list[str]:
        """Kernels that are zero in every dimension and have no code."""
        return getattr(self.module, "VANISHING", [])

    @property
    def dimension(self) -> int | None:
        """The latent dimension that explicit coordinates fix; None where any will do."""
        return getattr(self.module, "DIMENSION", None)

    @property
    def inputs(self) -> Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """Trailing axes and traits of a potential's inputs, z among them; {} where not known."""
        return getattr(self.module, "PARAMETERS", {})

    def function(self, name: str) -> Callable[..., Any]:
        """The kernel itself."""
        if not hasattr(self.module, name):
            raise InputError(f"kernel: {self.module.__name__} has no kernel {name!r}")
        return getattr(self.module, name)

    def arguments(self, name: str) -> tuple[str, ...]:
        """Names of a kernel's arguments, in order."""
        if name not in self._arguments:
            self._arguments[name] = tuple(inspect.signature(self.function(name)).parameters)
        return self._arguments[name]

    @property
    def parameters(self) -> set[str]:
        """Names of all tensors that kernels take besides z and heads."""
        names = {a for k in self.module.__all__ for a in self.arguments(k)}
        return names - {"z"} - set(getattr(self.module, "HEADS", []))

    def call(self, name: str, tensors: Mapping[str, Tensor | Pairs | Image]) -> Any:
        """Evaluate a kernel; tensors that it does not take are ignored."""
        wanted = self.arguments(name)
        if any(a not in tensors for a in wanted) and hasattr(self.module, "heads"):
            given = {a: tensors[a] for a in self.arguments("heads")}
            tensors = {**tensors, **self.module.heads(**given)}
        missing = [a for a in wanted if a not in tensors]
        if missing:
            raise InputError(f"{name}: expected the tensors {', '.join(wanted)}; missing {missing}")
        return self.function(name)(*[tensors[a] for a in wanted])


def text_of(module: ModuleType | SimpleNamespace) -> str | None:
    """The source of a generated module, or of what ``kahler_verify.compile`` returns."""
    if isinstance(module, ModuleType):
        return inspect.getsource(module)
    text: str | None = getattr(module, "source", None)
    return text


def _of_text(name: str, text: str) -> KernelSet:
    """What a generated module with that text has, in a process that may not have the module."""
    scope: dict[str, Any] = {"__name__": name}
    exec(compile(text, f"<kernels of {name}>", "exec"), scope)
    scope.pop("__builtins__")
    return KernelSet(SimpleNamespace(**scope, source=text))


def compile_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compile`` of a kernel, or the kernel itself, with a warning, where it cannot work.

    Complex arithmetic has no compiled code in torch, so that gains come from fewer calls only.
    """
    return torch.compile(function, fullgraph=True) if has_compiler() else function


def has_compiler() -> bool:
    """Is there a C++ compiler, which torch's own needs?  Where there is none, a warning says so."""
    found = any(shutil.which(c) for c in ("c++", "g++", "clang++"))
    if not found:
        warnings.warn(
            "torch.compile needs a C++ compiler (g++ or clang++), and none was found: "
            "the eager kernel is used",
            stacklevel=3,
        )
    return found
