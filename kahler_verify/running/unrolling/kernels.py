"""Kernels of generated modules as one straight-line function of a point and of parameters."""

from __future__ import annotations

from collections.abc import Mapping

from kahler_verify.errors import GenerationError
from kahler_verify.running.unrolling.arrays import Traced
from kahler_verify.running.unrolling.printing import Unrolled, written
from kahler_verify.running.unrolling.tracer import Tracer, argument_shapes, cholesky_factors


def unroll(text: str, kernel: str, sizes: Mapping[str, int], point: str | None = None) -> Unrolled:
    """Unroll a kernel of a generated module, in complex coordinates.

    Args:
        text: the module's source.
        kernel: the kernel's name; heads that it takes are computed first.
        sizes: what each dimension in the shapes of its arguments is, except K: that stays an axis.
        point: an argument that has the batch's shape for sure; by default all of them have.

    Raises:
        GenerationError: the text has no such kernel, or it calls something that has no rule, or
            does not depend on the point.
    """
    tracer = Tracer()
    scope, shapes = tracer.run(text), argument_shapes(text)
    if kernel not in shapes:
        raise GenerationError(f"expected one of the kernels {', '.join(shapes)}, got {kernel!r}")
    known: dict[str, Traced] = {}

    def given(function: str) -> list[Traced]:
        for name, shape in shapes[function].items():
            if name in known:
                continue
            if name in scope.get("HEADS", ()):
                known.update(scope["heads"](*given("heads")))
                continue
            missing = [s for s in shape if not s.isdecimal() and s not in sizes and s != "K"]
            if missing:
                raise GenerationError(f"{name}: expected the size of {missing[0]} to be given")
            inner = tuple(int(s) if s.isdecimal() else sizes[s] for s in shape if s != "K")
            _, traits = scope.get("PARAMETERS", {}).get(name, ((), ()))
            known[name] = tracer.argument(
                name,
                inner,
                over="K" in shape,
                hermitian="hermitian" in traits and len(inner) == 2,
                triangular=name in cholesky_factors(text) and len(inner) == 2,
                imaginary="real" not in traits,
            )
        return [known[name] for name in shapes[function]]

    result = scope[kernel](*given(kernel))
    results = result if isinstance(result, tuple) else (result,)
    used = {s for shape in shapes[kernel].values() for s in shape}
    at = ", ".join(f"{name} = {size}" for name, size in sizes.items() if name in used)
    return written(tracer, kernel, results, f"unrolled at {at}", point)


def unroll_mixture(
    component: str, mixture: str, kernel: str, d: int, sign: int, *, diagonal: bool = False
) -> Unrolled:
    """A kernel of a mixture of quadratic forms as one function of the point and the parameters.

    What else the kernel takes, such as a Cholesky factor of the metric, are arguments as well.

    The logits log π_k ± q_k, their softmax w, the derivatives of q_k and the mixture's kernel are
    traced together.  A quadratic form depends on z - c alone, so that it is traced at that point
    with the centre 0, where most of its terms vanish.  Derivatives of the metric see differences of
    the ∂∂̄q_k alone: their variants take P_k up to a common term as ``deviation``, which leaves less
    to cancel.

    Args:
        component: source of the module quadratic_form.
        mixture: source of the module of the mixture.
        kernel: which of its kernels.
        d: dimension of the latent space.
        sign: of q_k in the logits: 1 for a potential, -1 for a density.
        diagonal: whether precisions are given by their real diagonals.

    Raises:
        GenerationError: a kernel calls something that has no rule.
    """
    tracer = Tracer()
    own, outer = tracer.run(component), tracer.run(mixture)

    def matrices(name: str) -> Traced:
        if diagonal:
            return tracer.diagonal(name, d)
        return tracer.argument(name, (d, d), over=True, hermitian=True)

    z = tracer.argument("z", (d,))
    centre = tracer.argument("centre", (d,), over=True)
    known = {
        "z": z - centre,
        "centre": centre - centre,
        "precision": matrices("precision"),
    }
    log_weights = tracer.argument("log_weights", (), over=True, real=True)

    def of_component(name: str) -> Traced:
        return own[name](*[known[a] for a in argument_shapes(component)[name]])

    value = of_component("value")
    jets = {"q_d": of_component("gradient")}
    if kernel != "metric":
        known["precision"] = matrices("deviation")
    jets["q_db"] = of_component("metric")
    jets["w"] = tracer.softmax(log_weights + sign * value)
    for name, shape in argument_shapes(mixture)[kernel].items():
        if name not in jets:
            triangular = name in cholesky_factors(mixture)
            jets[name] = tracer.argument(name, (d,) * len(shape), triangular=triangular)
    result = outer[kernel](*[jets[a] for a in argument_shapes(mixture)[kernel]])
    title = f"a mixture of quadratic forms, unrolled at d = {d}"
    return written(tracer, kernel, [result], title, "z")
