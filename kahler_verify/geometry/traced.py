"""A decoder's metric as one straight program, where torch's calls cost most.

At a single point the numbers of a metric take less time than Python and torch take to ask for
them, and at some dozens these still take a part of it.  So what a call computes is traced once, to
the plain torch operations that run in it, with the weights as constants, and compiled by torch's
inductor.  A program is kept for as long as every bit of the decoder's parameters and buffers stays
the same; a frozen one, which saves looking at these, until torch has counted a write of one of
them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Hashable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from kahler_verify.errors import InputError
from kahler_verify.linear_algebra.kept import ReducedHeads, is_recorded
from kahler_verify.running.kernel_set import has_compiler
from kahler_verify.torch_state import alone

__all__ = ["Compile", "Program", "program_for", "require_compile", "traced"]

Compile = bool | Literal["frozen"]
Program = Callable[[Tensor], tuple[Tensor, ...]]
_CALL = nn.Module.__call__
_AGREEMENT = 1e5  # in units of rounding: how far a program may be from what it was traced of


def require_compile(compile: Any, decoder: Any) -> None:  # noqa: A002
    """Raise :class:`InputError` unless it is a choice, for a decoder with weights to follow."""
    if compile not in (False, True, "frozen"):
        raise InputError(f"compile: expected False, True or 'frozen', got {compile!r}")
    if compile and not isinstance(decoder, nn.Module):
        raise InputError(
            "compile: expected a decoder that is a module, whose parameters and buffers say when "
            f"a program is no longer right, got {type(decoder).__name__}"
        )


def program_for(
    name: Hashable,
    z: Tensor,
    decoder: nn.Module,
    kept: ReducedHeads,
    compute: Callable[[nn.Module], Program | None],
    *,
    compile: Compile,  # noqa: A002
) -> Program | None:
    """The program for points like z [B, d]; None where autograd looks on, or nothing can be traced.

    Args:
        name: of what is computed.
        z: points; there is a program for each number of them.
        decoder: whose parameters, buffers, kinds of layers and modes are followed.  What else it
            computes with must stay.
        kept: where programs are.
        compute: of a copy of the decoder, what is to be traced, or None.
        compile: what is asked of what is kept: True, that every bit of the decoder be the same;
            "frozen", that torch have counted no write of its parameters and buffers.
    """
    name = (name, z.shape, z.dtype)
    if compile == "frozen" and (known := kept.frozen(name, decoder)) is not None:
        return None if is_recorded([z, *known[0]]) else known[1]
    sources: list[Tensor] = []
    layers: list[Any] = []  # that are in another mode, exchanged or hooked are others
    for module in decoder.modules():
        layers += [type(module), module.training]
        layers += [len(module._forward_hooks), len(module._forward_pre_hooks)]
        own = (*module._parameters.values(), *module._buffers.values())
        sources += [x for x in own if x is not None]
    if is_recorded([z, *sources]):
        return None

    def make(*copies: Tensor) -> Program | None:
        memo = {
            id(x): nn.Parameter(new, requires_grad=False) if isinstance(x, nn.Parameter) else new
            for x, new in zip(sources, copies, strict=True)
        }
        at = torch.where(torch.isfinite(z), z, 0).detach()
        return traced(lambda: compute(copy.deepcopy(decoder, memo)), at)

    program = kept.unrecorded((*name, *layers), sources, make)
    if compile == "frozen":
        kept.freeze(name, decoder, sources, program)
    return program


def traced(prepare: Callable[[], Program | None], z: Tensor) -> Program | None:
    """What ``prepare()`` computes of points like z, as a program; None, with a warning why not."""
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import, as torch.fx is

    before = Distribution._validate_args
    try:
        with torch.no_grad(), alone(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of complex numbers, which only its ends have
            # the inductor chooses products of its own, and has no lowering of oneDNN's
            with torch.backends.mkldnn.flags(enabled=False):
                compute = prepare()
                if compute is None:
                    return None
                compute(z)  # what is kept of weights is made
                graph = make_fx(_with_own_calls(compute))(z)
                _fold_constants(graph)
                program = _compiled(graph, z)
                for point in (z, 0.9 * z + 0.1):
                    _require_same(program(point), compute(point))
        return program
    except Exception as error:  # noqa: BLE001  # whatever a user's code, or a compiler, may raise
        if isinstance(error, InputError):
            return None  # the plain way has the message
        lines = str(error).strip().splitlines() or [type(error).__name__]
        warnings.warn(
            f"compile: this decoder cannot be compiled ({lines[0]}), and goes without",
            stacklevel=2,
        )
        return None
    finally:
        Distribution.set_default_validate_args(before)  # which the compiler switches off for all


def _with_own_calls(compute: Program) -> Program:
    """The same while modules are called as ever: torch.fx has another ``Module.__call__``."""

    def run(z: Tensor) -> tuple[Tensor, ...]:
        patched, nn.Module.__call__ = nn.Module.__call__, _CALL  # type: ignore[method-assign]
        try:
            return compute(z)
        finally:
            nn.Module.__call__ = patched  # type: ignore[method-assign]

    return run


def _fold_constants(program: Any) -> None:
    """Compute once what does not depend on z: what is made of weights alone."""
    from torch.fx.node import map_arg

    nodes = list(program.graph.nodes)
    varying = {node for node in nodes if node.op == "placeholder"}
    size = -1
    while len(varying) != size:  # what is written in the course of a call is no constant either
        size = len(varying)
        for node in nodes:
            if node.op not in ("get_attr", "output") and varying & set(node.all_input_nodes):
                varying.add(node)
        varying = varying.union(*map(_written, list(varying)))
    values: dict[Any, Any] = {}

    def value(node: Any) -> Any:
        return values[node]

    for number, node in enumerate(nodes):
        if node.op == "get_attr":
            values[node] = getattr(program, node.target)
        elif node.op == "call_function" and node not in varying:
            arguments = map_arg((node.args, node.kwargs), value)
            values[node] = node.target(*arguments[0], **arguments[1])
            if isinstance(values[node], Tensor) and varying & set(node.users) | {
                user for user in node.users if user.op == "output"
            }:
                name = f"_constant_{number}"
                # few rows by a matrix as it stands in memory take a sixth less than by a transpose
                program.register_buffer(name, values[node].contiguous())
                with program.graph.inserting_before(node):
                    kept = program.graph.get_attr(name)
                values[kept] = values[node]
                node.replace_all_uses_with(kept)
    program.graph.eliminate_dead_code()
    program.recompile()


def _written(node: Any) -> set[Any]:
    """What an operation writes to: its own arguments, and what these are views of."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return set()
    pending = []
    for place, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            pending += list(given) if isinstance(given, list | tuple) else [given]
    out: set[Any] = set()
    while pending:
        node = pending.pop()
        if getattr(node, "op", None) != "call_function" or node in out:
            continue
        out.add(node)
        returned = getattr(getattr(node.target, "_schema", None), "returns", None)
        # the parts of a list, too, are taken from it by a function without a schema
        if returned is None or any(each.alias_info is not None for each in returned):
            pending += node.all_input_nodes
    return out


def _compiled(graph: Any, z: Tensor) -> Program:
    """The program of a graph; the graph itself, which is slower, where there is no compiler.

    By the inductor alone: torch.compile would ask with every call whether its inputs are still
    those that it knows, which takes as long as the program.
    """
    if not has_compiler():
        return graph
    import torch._inductor as inductor  # slow to import, and only needed here

    return inductor.compile(graph, [z])


def _require_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for x, y in zip(found, expected, strict=True):
        if not bool(torch.isfinite(y).all()):
            raise InputError("decoder: expected finite parameters")  # as it says in a message
        if x.dtype == torch.bool:
            same = torch.equal(x, y)
        else:
            bound = _AGREEMENT * torch.finfo(y.dtype).eps * float(y.abs().amax())
            same = bool(((x - y).abs() <= bound).all())
        if not same:
            raise RuntimeError("its results depend on more than z and the weights")
