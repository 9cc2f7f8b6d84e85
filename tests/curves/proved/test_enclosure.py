"""Intervals of float64 against balls of Arb, and against samples."""

import pytest
import torch
from flint import arb, ctx
from torch import nn

from kahler_verify.curves.proved import enclosure
from kahler_verify.curves.proved.enclosure import Enclosure, Jets, exactly, through
from tests.manifolds import DOUBLE, draw

EXACT = {
    "tanh": lambda x: (x.tanh(), 1 - x.tanh() ** 2, -2 * x.tanh() * (1 - x.tanh() ** 2)),
    "sigmoid": lambda x: (
        1 / (1 + (-x).exp()),
        (-x).exp() / (1 + (-x).exp()) ** 2,
        (-x).exp() * ((-x).exp() - 1) / (1 + (-x).exp()) ** 3,
    ),
    "softplus": lambda x: (
        x.exp().log1p(),
        1 / (1 + (-x).exp()),
        (-x).exp() / (1 + (-x).exp()) ** 2,
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_functions_hold_their_values_at_points(name: str) -> None:
    """Against 100 bits, everywhere from -300 to 19.9; the radius is no more than it has to be."""
    x = torch.cat([draw(200), torch.linspace(-300, 19.9, 100, dtype=DOUBLE), torch.zeros(1)])
    parts = getattr(enclosure, name)(exactly(x.double()))
    before, ctx.prec = ctx.prec, 1000
    try:
        for k, at in enumerate(x.double().tolist()):
            for part, exact in zip(parts, EXACT[name](arb(at)), strict=True):
                error = abs(exact - arb(part.centre[k].item()))
                assert error <= arb(part.radius[k].item())
    finally:
        ctx.prec = before
    for part in parts:
        assert bool((part.radius <= 1e-12 * (1 + part.centre.abs())).all())


@pytest.mark.parametrize("name", EXACT)
def test_functions_hold_their_values_on_intervals(name: str) -> None:
    centre, radius = 2 * draw(300), draw(300, seed=1).abs()
    parts = getattr(enclosure, name)(Enclosure(centre, radius))
    function = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": nn.functional.softplus}
    for u in torch.linspace(-1, 1, 41, dtype=DOUBLE):
        x = (centre + u * radius).requires_grad_()
        y = function[name](x)
        slope = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
        bend = torch.autograd.grad(slope.sum(), x)[0]
        for part, exact in zip(parts, (y, slope, bend), strict=True):
            assert bool(((exact - part.centre).abs() <= part.radius).all())
    # the value and the slope are as tight as they can be
    ends = [function[name](centre + s * radius) for s in (-1, 1)]
    assert torch.allclose(parts[0].radius, (ends[1] - ends[0]) / 2, atol=1e-9)


def test_softplus_is_unknown_where_torch_is_linear() -> None:
    x = torch.tensor([19.0, 21.0], dtype=DOUBLE)
    assert enclosure.softplus(exactly(x))[0].centre.isnan().tolist() == [False, True]


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Sigmoid(), nn.Softplus()])
def test_jets_of_networks_on_boxes(activation: nn.Module) -> None:
    """Value, first and second derivatives at points of a box, all inside."""
    layers = [nn.Linear(2, 9), activation, nn.Linear(9, 9, bias=False), activation, nn.Linear(9, 5)]
    net = nn.Sequential(*layers).double().requires_grad_(False)
    for n, layer in enumerate(layers[::2]):
        generator = torch.Generator().manual_seed(n)
        nn.init.normal_(layer.weight, 0, 0.5, generator=generator)
        if layer.bias is not None:
            nn.init.normal_(layer.bias, 0, 0.3, generator=generator)
    z, room = draw(20, 2), 0.1 * torch.ones(20, 2, dtype=DOUBLE)
    axes = [exactly(axis.expand(20, 2).double()) for axis in torch.eye(2)]
    nothing = exactly(torch.zeros(20, 2, dtype=DOUBLE))
    found = through(layers, Jets(Enclosure(z, room), axes, [nothing] * 3))
    for corner in 0.1 * torch.rand(30, 2, dtype=DOUBLE) * 2 - 0.1:
        first = torch.func.vmap(torch.func.jacfwd(net))(z + corner)
        second = torch.func.vmap(torch.func.jacfwd(torch.func.jacfwd(net)))(z + corner)
        pairs = [
            (found.value, net(z + corner)),
            *[(found.first[a], first[..., a]) for a in (0, 1)],
            *[
                (found.second[n], second[..., a, b])
                for n, (a, b) in enumerate(((0, 0), (0, 1), (1, 1)))
            ],
        ]
        for part, exact in pairs:
            assert bool(((exact - part.centre).abs() <= part.radius + 1e-13).all())


def test_rounding_of_sums_is_held() -> None:
    """Terms that cancel: the float result is off by more than an ulp, and the radius holds it."""
    x, w = 1e8 * draw(50, 300), draw(4, 300, seed=1)
    w[:, 150:] = -w[:, :150]
    x[:, 150:] = x[:, :150] * (1 + 1e-12)
    found = enclosure.linear(w, None, exactly(x))
    before, ctx.prec = ctx.prec, 300
    try:
        for row in range(10):
            terms = [arb(a) * arb(b) for a, b in zip(x[row].tolist(), w[0].tolist(), strict=True)]
            error = abs(sum(terms, arb(0)) - arb(found.centre[row, 0].item()))
            assert error <= arb(found.radius[row, 0].item())
    finally:
        ctx.prec = before
    norm = exactly(x).norm()
    assert bool(((x.norm(dim=-1) - norm.centre).abs() <= norm.radius).all())
