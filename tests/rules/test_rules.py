"""Every rule against torch.func: first derivatives by jvp, second ones by reverse over reverse.

Seeds carry random first and second derivatives, so that f′ h″ is checked along with f″ h′ h′.
"""

import math
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import grad, jacrev, jvp, vjp

from kahler_verify import FisherMetric
from kahler_verify.errors import InputError
from kahler_verify.jets import propagate
from kahler_verify.jets.tensor import Jet
from kahler_verify.rules import RULES, Expansion, Frame, Record, find, rule
from kahler_verify.rules.expansion import chain

D = torch.float64
R = 2  # directions


def seed(x, second="all", generator=None):
    g = generator or torch.Generator().manual_seed(1)
    rows = {"none": 0, "along": R, "all": R * (R + 1) // 2}[second]
    first = torch.randn(R, *x.shape, dtype=x.dtype, generator=g)
    curved = torch.randn(rows, *x.shape, dtype=x.dtype, generator=g) if rows else None
    return Jet(Expansion(x, first, curved, Frame(R, second, False, Record())))


def pairing(a, b):
    return (a.conj() * b).sum().real if a.is_complex() else (a * b).sum()


def expected_second(f, x, i, j, bend):
    """c · (D²f(i, j) + Df(bend)) for a random c, and that c."""
    g = torch.Generator().manual_seed(3)
    y, back = vjp(f, x)
    c = torch.randn(y.shape, dtype=y.dtype, generator=g)
    slope, again = vjp(lambda p: pairing(vjp(f, p)[1](c)[0], i), x)
    return c, pairing(again(torch.ones_like(slope))[0], j) + pairing(back(c)[0], bend)


def assert_follows(f, x, reference=None, *, tolerance=1e-12, by_autograd=()):
    reference = reference or f
    jet = seed(x)
    out = f(jet)
    assert isinstance(out, Jet)
    assert tuple(out.record.autograd) == tuple(by_autograd)
    value = reference(x)
    torch.testing.assert_close(out.value, value, rtol=tolerance, atol=tolerance)
    first, second = jet.expansion.first, jet.expansion.second
    for k in range(R):
        want = jvp(reference, (x,), (first[k],))[1]
        torch.testing.assert_close(out.tangents[k], want, rtol=tolerance, atol=tolerance)
    for k, (i, j) in enumerate(((0, 0), (0, 1), (1, 1))):
        c, want = expected_second(reference, x, first[i], first[j], second[k])
        got = pairing(c, out.second[k])
        scale = max(1.0, float((c * out.second[k]).abs().sum()))
        assert abs(float(got - want)) < tolerance * scale, (float(got), float(want))
    alone = seed(x, "along")
    again = f(alone)
    for k in range(R):
        v, a = alone.expansion.first[k], alone.expansion.second[k]
        c, want = expected_second(reference, x, v, v, a)
        scale = max(1.0, float((c * again.second[k]).abs().sum()))
        assert abs(float(pairing(c, again.second[k]) - want)) < tolerance * scale


def image(*shape):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(0))


def weights(*shape):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(5))


def positive(*shape):
    return image(*shape).abs() + 0.3


VECTOR, SEQUENCE, LINE = (4, 6), (3, 4, 6), (2, 4, 9)
PICTURE, VOLUME = (2, 4, 6, 6), (2, 4, 4, 4, 4)

LINEAR = {
    "linear": (lambda x: F.linear(x, weights(3, 6), weights(3)), VECTOR),
    "linear on one vector": (lambda x: F.linear(x, weights(3, 6), weights(3)), (6,)),
    "linear with a weight that varies": (lambda x: F.linear(x, x[:3] * 2, x[0, :3]), VECTOR),
    "bilinear": (lambda x: F.bilinear(x, x.sin(), weights(3, 6, 6), weights(3)), VECTOR),
    "matmul": (lambda x: x @ weights(6, 5), SEQUENCE),
    "matmul from the left": (lambda x: weights(5, 4) @ x, SEQUENCE),
    "matmul of two": (lambda x: x @ x.mT.tanh(), SEQUENCE),
    "matmul of other ranks": (lambda x: x @ x[0].mT.tanh(), SEQUENCE),
    "matmul with a vector": (lambda x: x @ x[0, 0], SEQUENCE),
    "bmm": (lambda x: torch.bmm(x, x.transpose(1, 2)), SEQUENCE),
    "addmm": (lambda x: torch.addmm(x[:, :2], x, weights(6, 2), beta=0.5, alpha=2), VECTOR),
    "baddbmm": (lambda x: torch.baddbmm(x @ weights(6, 4), x, x.mT, alpha=0.3), SEQUENCE),
    "einsum": (lambda x: torch.einsum("bij,bkj,bi->bk", x, x.sin(), x[..., 0]), SEQUENCE),
    "tensordot": (lambda x: torch.tensordot(x, weights(6, 3), 1), SEQUENCE),
    "outer": (lambda x: torch.outer(x[0], x[1].exp()), VECTOR),
    "mv": (lambda x: torch.mv(x, x[0]), VECTOR),
    "dot": (lambda x: torch.dot(x[0], x[1] * x[2]), VECTOR),
    "addcmul": (lambda x: torch.addcmul(x, x.sin(), x, value=0.5), VECTOR),
    "conv1d": (lambda x: F.conv1d(x, weights(3, 4, 3), weights(3), padding=1), LINE),
    "conv2d": (lambda x: F.conv2d(x, weights(6, 2, 3, 3), weights(6), 2, 1, groups=2), PICTURE),
    "conv2d, same": (lambda x: F.conv2d(x, weights(3, 4, 3, 3), padding="same"), PICTURE),
    "conv2d of one image": (lambda x: F.conv2d(x, weights(3, 4, 3, 3), weights(3)), PICTURE[1:]),
    "conv2d with a weight that varies": (
        lambda x: F.conv2d(x, x[:1, :, :3, :3].sin(), x[0, :1, 0, 0]),
        PICTURE,
    ),
    "conv3d": (lambda x: F.conv3d(x, weights(3, 4, 2, 2, 2), weights(3)), VOLUME),
    "conv_transpose1d": (lambda x: F.conv_transpose1d(x, weights(4, 3, 4), weights(3), 2), LINE),
    "conv_transpose2d": (
        lambda x: F.conv_transpose2d(x, weights(4, 3, 4, 4), weights(3), 2, 1, output_padding=1),
        PICTURE,
    ),
    "conv_transpose3d": (lambda x: F.conv_transpose3d(x, weights(4, 2, 2, 2, 2)), VOLUME),
}

NORMS = {
    "batch_norm": (
        lambda x: F.batch_norm(x, weights(4), positive(4), weights(4), weights(4), eps=1e-3),
        PICTURE,
    ),
    "batch_norm of vectors": (lambda x: F.batch_norm(x, weights(6), positive(6)), VECTOR),
    "group_norm": (lambda x: F.group_norm(x, 2, weights(4), weights(4)), PICTURE),
    "group_norm of vectors": (lambda x: F.group_norm(x, 2), VECTOR),
    "rms_norm": (lambda x: F.rms_norm(x, (6,), weights(6)), SEQUENCE),
    "instance_norm, stored": (
        lambda x: F.instance_norm(x, weights(4), positive(4), use_input_stats=False),
        PICTURE,
    ),
    "normalize": (lambda x: F.normalize(x, dim=1), SEQUENCE),
    "local_response_norm": (lambda x: F.local_response_norm(x, 2), PICTURE),
}

ARITHMETIC = {
    "add": (lambda x: x + x.sin() + 1 + weights(6), VECTOR),
    "add with alpha": (lambda x: torch.add(x, x.sin(), alpha=3), VECTOR),
    "add, broadcast": (lambda x: x[:, :1] + weights(4, 6) + x[0], VECTOR),
    "sub": (lambda x: 1 - (weights(6) - x) - x.sin() - 2, VECTOR),
    "rsub": (lambda x: torch.rsub(x, 3.0, alpha=2), VECTOR),
    "mul": (lambda x: 2 * x * x.sin() * weights(6) * x[0], VECTOR),
    "mul to more axes": (lambda x: weights(2, 1, 6) * x, VECTOR),
    "div": (lambda x: x / (2 + x.sin()) / 3 / weights(6), VECTOR),
    "div of a constant": (lambda x: 1 / (2 + x.sin()) + weights(6) / (2 + x.cos()), VECTOR),
    "neg": (lambda x: -x, VECTOR),
    "pow 0, 1, 2, 3": (lambda x: x**0 + x**1 + 3 * x**2 + x**3, VECTOR),
    "pow ½, -1, 1.7": (
        lambda x: (x * x + 1) ** 0.5 + (2 + x.sin()) ** -1 + (x * x + 1) ** 1.7,
        VECTOR,
    ),
    "pow of tensors": (lambda x: (2 + x.sin()) ** (weights(6).abs() + 0.5), VECTOR),
    "pow of a constant": (lambda x: 2.5**x, VECTOR),
    "where": (lambda x: torch.where(weights(6) > 0, x.sin(), x**2), VECTOR),
    "where of one": (lambda x: torch.where(weights(6) > 0, x, x) ** 2, VECTOR),
    "where with a constant": (lambda x: torch.where(weights(6) > 0, x.sin(), 1.0), VECTOR),
    "masked_fill": (lambda x: x.masked_fill(weights(6) > 0, 0.5).sin(), VECTOR),
}


REDUCTIONS = {
    "sum": (lambda x: x.sum(-1) + x.sum((0, 2), keepdim=True).sum(), SEQUENCE),
    "mean": (lambda x: x.mean((1, 2)) + torch.mean(x), SEQUENCE),
    "cumsum": (lambda x: x.cumsum(1), SEQUENCE),
    "softmax": (lambda x: F.softmax(x, 1) + torch.softmax(x, -1) + x.softmax(0), SEQUENCE),
    "log_softmax": (lambda x: F.log_softmax(x, 1) * x.log_softmax(-1), SEQUENCE),
    "logsumexp": (
        lambda x: x.logsumexp(-1) + torch.logsumexp(x, (1, 2), keepdim=True)[:, 0],
        SEQUENCE,
    ),
    "logaddexp": (lambda x: torch.logaddexp(x, 2 * x), VECTOR),
    "var": (lambda x: x.var(-1) + torch.var(x, dim=(1, 2), keepdim=True)[:, 0], SEQUENCE),
    "std": (lambda x: x.std(-1, correction=0), SEQUENCE),
    "norm": (lambda x: x.norm(dim=-1) + torch.linalg.vector_norm(x, dim=2), SEQUENCE),
    "norm of all": (lambda x: x.norm(), SEQUENCE),
    "softmin": (lambda x: F.softmin(x, 1), SEQUENCE),
}

SHAPES = {
    "view": (
        lambda x: x.view(3, -1).view(-1, 2, 12).sin().transpose(0, 1).reshape(2, -1),
        SEQUENCE,
    ),
    "flatten": (
        lambda x: x.flatten(1).unflatten(1, (2, 12)) * torch.flatten(x, 1)[:, None, :12],
        SEQUENCE,
    ),
    "permute": (lambda x: x.permute(2, 0, 1) * x.movedim(-1, 0) + x.swapaxes(0, 2).mT, SEQUENCE),
    "squeeze": (lambda x: x.unsqueeze(1).squeeze(1).T * x.t(), VECTOR),
    "expand": (lambda x: x[:, None].expand(-1, 3, -1) * x[:, :1, None].expand(4, 3, 6), VECTOR),
    "expand_as": (lambda x: x[:, :1].expand_as(x) * x[0].broadcast_to(4, 6), VECTOR),
    "view_as": (lambda x: x.reshape(6, 4).view_as(x) * x, VECTOR),
    "repeat": (lambda x: x.repeat(2, 1) * x.tile(2, 1) + x.repeat_interleave(2, 0), VECTOR),
    "cat": (lambda x: torch.cat([x, x.sin(), weights(4, 2)], -1), VECTOR),
    "stack": (lambda x: torch.stack([x, weights(4, 6), x.sin()], 1), VECTOR),
    "hstack": (lambda x: torch.hstack([x, x * x]), VECTOR),
    "chunk": (lambda x: x.chunk(2, -1)[0] * x.chunk(2, -1)[1], VECTOR),
    "split": (lambda x: x.split([2, 4], -1)[1].sin() + torch.split(x, 4, 1)[0], VECTOR),
    "unbind": (lambda x: x.unbind(1)[0] * x.unbind(1)[2], VECTOR),
    "iteration": (lambda x: sum(row * row for row in x), VECTOR),
    "indices": (
        lambda x: x[1:, ::2] * x[[0, 1, 2]][:, torch.tensor([1, 1, 3])] * x[:3, None, 0],
        VECTOR,
    ),
    "mask": (lambda x: x[weights(4, 6) > 0] ** 2, VECTOR),
    "select": (lambda x: x.select(1, 2) * x.narrow(1, 1, 2)[:, 0], VECTOR),
    "gather": (
        lambda x: x.gather(1, torch.tensor([[0, 2]] * 4)) * x.index_select(1, torch.tensor([1, 4])),
        VECTOR,
    ),
    "roll": (lambda x: x.roll(1, -1) * x.flip(1), VECTOR),
    "tril": (lambda x: x.tril() * x.triu(-1) + x.diagonal()[:, None], VECTOR),
    "diag_embed": (lambda x: torch.diag_embed(x) ** 2, VECTOR),
    "diff": (lambda x: x.diff(dim=1), VECTOR),
    "pad": (lambda x: F.pad(x, (1, 2), value=0.5) * 2, VECTOR),
    "pad, all axes": (lambda x: F.pad(x, (1, 0, 2, 1)), VECTOR),
    "pad, reflect": (lambda x: F.pad(x, (1, 2, 1, 1), mode="reflect"), PICTURE),
    "pad, replicate": (lambda x: F.pad(x, (1, 2, 1, 1), mode="replicate"), PICTURE),
    "pad, circular": (lambda x: F.pad(x, (1, 2, 1, 1), mode="circular"), PICTURE),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2) * 2, PICTURE),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), PICTURE),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2) * x, PICTURE),
    "unfold": (lambda x: F.unfold(x, 2), PICTURE),
    "fold": (lambda x: F.fold(x.flatten(1).reshape(2, 4, 36), (7, 7), 2), PICTURE),
    "windows": (lambda x: x.unfold(1, 3, 2), VECTOR),
    "casts": (lambda x: x.clone().contiguous().to(D).double().type_as(x), VECTOR),
    "casts like another": (
        lambda x: torch.arange(x.shape[-1]).to(x) * x.to(x) + torch.ones(1).to(x, copy=True),
        VECTOR,
    ),
    "fft": (lambda x: torch.fft.ifft(torch.fft.fft(x) * torch.fft.fft(x)).real, VECTOR),
    "rfft": (lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2), VECTOR),
    "meshing": (lambda x: x[:, None, :, None] * x[:, None, None, :], VECTOR),
}

RESAMPLING = {
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 2), LINE),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), PICTURE),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2), VOLUME),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 4), LINE),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (4, 1)), PICTURE),
    "adaptive_avg_pool2d to one": (lambda x: F.adaptive_avg_pool2d(x, 1), PICTURE),
    "adaptive_avg_pool3d": (lambda x: F.adaptive_avg_pool3d(x, 3), VOLUME),
    "avg_pool2d of one image": (lambda x: F.avg_pool2d(x, 2), PICTURE[1:]),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"), PICTURE),
    "nearest to a size": (lambda x: F.interpolate(x, (9, 5)), PICTURE),
    "nearest, 1d": (lambda x: F.interpolate(x, scale_factor=2), LINE),
    "nearest, 3d": (lambda x: F.interpolate(x, scale_factor=2), VOLUME),
    "nearest-exact": (lambda x: F.interpolate(x, (9, 5), mode="nearest-exact"), PICTURE),
    "linear": (lambda x: F.interpolate(x, 13, mode="linear"), LINE),
    "bilinear": (lambda x: F.interpolate(x, (9, 5), mode="bilinear"), PICTURE),
    "bilinear, corners": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
        PICTURE,
    ),
    "bilinear, antialias": (
        lambda x: F.interpolate(x, (3, 3), mode="bilinear", antialias=True),
        PICTURE,
    ),
    "bicubic": (lambda x: F.interpolate(x, (9, 5), mode="bicubic"), PICTURE),
    "trilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"), VOLUME),
    "area": (lambda x: F.interpolate(x, (3, 3), mode="area"), PICTURE),
}

SMOOTH = {
    **{
        name: (getattr(torch, name), VECTOR)
        for name in ("tanh", "sigmoid", "exp", "exp2", "expm1", "sin", "cos", "tan", "sinh", "cosh")
    },
    **{name: (getattr(torch, name), VECTOR) for name in ("atan", "asinh", "square", "erf", "erfc")},
    "silu": (F.silu, VECTOR),
    "mish": (F.mish, VECTOR),
    "gelu": (F.gelu, VECTOR),
    "gelu, tanh": (lambda x: F.gelu(x, approximate="tanh"), VECTOR),
    "softplus": (lambda x: F.softplus(x) + F.softplus(x, beta=2.5), VECTOR),
    "logsigmoid": (F.logsigmoid, VECTOR),
    "tanhshrink": (F.tanhshrink, VECTOR),
    "glu": (lambda x: F.glu(x, 1), VECTOR),
    "sigmoid of special": (torch.special.expit, VECTOR),
    "methods": (lambda x: x.tanh() + x.sigmoid() + x.exp() + x.sin(), VECTOR),
    "dropout after training": (lambda x: F.dropout(x, 0.5, training=False), VECTOR),
}
POSITIVE = {
    name: (getattr(torch, name), VECTOR)
    for name in (
        "log",
        "log2",
        "log10",
        "log1p",
        "sqrt",
        "rsqrt",
        "reciprocal",
        "lgamma",
        "digamma",
    )
}
BOUNDED = {name: (getattr(torch, name), VECTOR) for name in ("asin", "acos", "atanh", "logit")}

PIECES = {
    "relu": (F.relu, VECTOR, 0),
    "relu in place": (lambda x: F.relu(x * 1, inplace=True), VECTOR, 0),
    "relu6": (lambda x: F.relu6(4 * x), VECTOR, 0),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), VECTOR, 0),
    "prelu": (lambda x: F.prelu(x, weights(4)), PICTURE, 0),
    "rrelu": (F.rrelu, VECTOR, 0),
    "elu": (F.elu, VECTOR, 1),
    "elu, 1.5": (lambda x: F.elu(x, 1.5), VECTOR, 0),
    "celu": (lambda x: F.celu(x, 1.5), VECTOR, 1),
    "selu": (F.selu, VECTOR, 0),
    "softsign": (F.softsign, VECTOR, 1),
    "hardtanh": (F.hardtanh, VECTOR, 0),
    "hardswish": (lambda x: F.hardswish(4 * x), VECTOR, 0),
    "softshrink": (F.softshrink, VECTOR, 0),
    "hardshrink": (F.hardshrink, VECTOR, -1),
    "threshold": (lambda x: F.threshold(x, 0.1, 20.0), VECTOR, -1),
    "clamp": (lambda x: x.clamp(-0.5, 0.7), VECTOR, 0),
    "clamp_min": (lambda x: x.clamp_min(0.1), VECTOR, 0),
    "abs": (torch.abs, VECTOR, 0),
    "maximum": (lambda x: torch.maximum(x, x.flip(1) * 2), VECTOR, 0),
    "minimum": (lambda x: torch.minimum(x, weights(6)), VECTOR, 0),
    "max": (lambda x: x.max(-1).values * x.min(1)[0] + torch.max(x), VECTOR, 0),
    "amax": (lambda x: x.amax(-1) + x.amin((0, 1)), VECTOR, 0),
    "sort": (lambda x: x.sort(-1).values ** 2 * weights(6), VECTOR, 0),
    "topk": (lambda x: x.topk(2, -1).values, VECTOR, 0),
    "max_pool1d": (lambda x: F.max_pool1d(x, 2), LINE, 0),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), PICTURE, 0),
    "max_pool3d": (lambda x: F.max_pool3d(x, 2), VOLUME, 0),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, 2), PICTURE, 0),
    "where": (lambda x: torch.where(x > 0, x.sin(), x * x), VECTOR, -1),
    "a mask as numbers": (lambda x: (x > 0).double() * x, VECTOR, -1),
    "sign": (lambda x: x * torch.sign(x), VECTOR, -1),
    "round": (lambda x: x - x.round(), VECTOR, -1),
    "remainder": (lambda x: x % 0.7, VECTOR, -1),
}


def masked_attention(mask):
    return lambda x: F.scaled_dot_product_attention(x, x.sin(), x.cos(), attn_mask=mask)


ATTENTION = {
    "plain": (lambda x: F.scaled_dot_product_attention(x, x.sin(), x.cos()), SEQUENCE),
    "scaled": (
        lambda x: F.scaled_dot_product_attention(x, weights(3, 4, 6), x, scale=0.3),
        SEQUENCE,
    ),
    "causal": (lambda x: F.scaled_dot_product_attention(x, x.sin(), x, is_causal=True), SEQUENCE),
    "masked": (masked_attention(torch.eye(4, dtype=torch.bool) | (weights(4, 4) > 0)), SEQUENCE),
    "biased": (masked_attention(weights(4, 4)), SEQUENCE),
}


def by_math(f):
    """torch's fused attention has no forward derivative."""

    def inside(x):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return f(x)

    return inside


def square(x):
    """Positive definite matrices [B, 2, 2] and others [B, 2, 3] of x [B, 6]."""
    rows = x.reshape(len(x), 2, 3)
    return rows @ rows.mH + torch.eye(2, dtype=D), rows


MATRICES = {
    "cholesky": (lambda x: torch.linalg.cholesky(square(x)[0]), VECTOR),
    "cholesky of what is not symmetric": (
        lambda x: torch.linalg.cholesky(square(x)[0] + torch.triu(x[:, :2, None], 1)),
        VECTOR,
    ),
    "inverse": (lambda x: torch.linalg.inv(square(x)[0]) @ square(x)[0].inverse(), VECTOR),
    "solve": (lambda x: torch.linalg.solve(*square(x)), VECTOR),
    "solve, of a constant": (lambda x: torch.linalg.solve(square(x)[0], weights(2, 3)), VECTOR),
    "solve, by a constant": (lambda x: torch.linalg.solve(weights(4, 2, 2), square(x)[1]), VECTOR),
    "solve vectors": (lambda x: torch.linalg.solve(square(x)[0], square(x)[1][..., 0]), VECTOR),
    "solve a triangle": (
        lambda x: (
            torch.linalg.solve_triangular(*square(x), upper=False)
            + torch.linalg.solve_triangular(square(x)[0].sin(), square(x)[1], upper=True)
        ),
        VECTOR,
    ),
    "det": (lambda x: torch.linalg.det(square(x)[0]) * torch.det(square(x)[0].sin()), VECTOR),
    "logdet": (lambda x: torch.logdet(square(x)[0]), VECTOR),
    "slogdet": (
        lambda x: torch.linalg.slogdet(-square(x)[0]).logabsdet + square(x)[0].slogdet()[1],
        VECTOR,
    ),
    "solve, of more axes": (
        lambda x: (
            torch.linalg.solve(weights(3, 1, 2, 2), square(x)[1]).sum(0)
            + torch.linalg.solve(square(x)[0], weights(3, 1, 2, 3)).sum(0)
        ),
        VECTOR,
    ),
}

ALL = LINEAR | NORMS | ARITHMETIC | REDUCTIONS | SHAPES | RESAMPLING | SMOOTH | MATRICES


@pytest.mark.parametrize("name", ALL)
def test_smooth_functions(name):
    f, shape = ALL[name]
    x = image(*shape)
    assert_follows(f, x)
    assert f(seed(x)).record.kinks == {}


def test_distances_between_points():
    """Torch's own has no forward mode, and no second derivatives."""
    g = torch.Generator().manual_seed(5)
    x, centres = torch.randn(2, 3, 4, dtype=D, generator=g), torch.randn(5, 4, dtype=D, generator=g)

    def apart(a, b):
        return (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1).sqrt()

    assert_follows(lambda x: torch.cdist(x, centres), x, lambda x: apart(x, centres))
    assert_follows(lambda x: torch.cdist(centres, x), x, lambda x: apart(centres, x))
    assert_follows(
        lambda x: torch.cdist(x, 2 * x.flip(1) + 3), x, lambda x: apart(x, 2 * x.flip(1) + 3)
    )


def map_square(f, x):
    return f(square(x)[0])


def test_spellings_of_functions_of_matrices():
    x = image(*VECTOR)
    assert_follows(lambda x: torch.linalg.solve(A=square(x)[0], B=square(x)[1]), x)
    assert_follows(
        lambda x: torch.linalg.solve_triangular(square(x)[0], B=square(x)[1], upper=True), x
    )
    plain = partial(map_square, torch.linalg.cholesky)
    assert_follows(lambda x: torch.cholesky(square(x)[0], False), x, plain)


MENDED = {
    "solve": (torch.linalg.solve, lambda a, b: torch.linalg.inv(a) @ b),
    "det": (
        lambda a, b: torch.linalg.det(a),
        lambda a, b: a[:, 0, 0] * a[:, 1, 1] - a[:, 0, 1] ** 2,
    ),
    "slogdet": (
        lambda a, b: torch.linalg.slogdet(a)[1],
        lambda a, b: (a[:, 0, 0] * a[:, 1, 1] - a[:, 0, 1] ** 2).log(),
    ),
}


@pytest.mark.parametrize("name", MENDED)
def test_rules_that_are_differentiated_again(name):
    """Torch's own forward derivatives of these are wrong then."""
    x, v, w = image(*VECTOR), weights(*VECTOR), weights(*VECTOR).flip(0)

    def slope(f):
        return lambda x: f(*square(seed(x))).tangents

    ours, plain = (slope(f) for f in MENDED[name])
    for f in (
        lambda s: jvp(lambda x: jvp(s, (x,), (v,))[1], (x,), (w,))[1],
        lambda s: grad(lambda x: (jvp(s, (x,), (v,))[1] ** 2).sum())(x),
        lambda s: jacrev(s)(x),
    ):
        torch.testing.assert_close(f(ours), f(plain), rtol=1e-9, atol=1e-9)


def test_determinants_of_almost_singular_matrices():
    a, c = image(4, 3), weights(4, 3)
    rows = torch.stack([a[:, :2], a[:, :2] + 1e-13 * c[:, :2]], 1).requires_grad_()
    jet = seed(rows.detach())
    found = torch.linalg.det(jet)
    cofactors = torch.stack([rows[:, 1, 1], -rows[:, 1, 0], -rows[:, 0, 1], rows[:, 0, 0]], -1)
    want = (cofactors.reshape(4, 2, 2) * jet.expansion.first).sum((-2, -1))
    torch.testing.assert_close(found.tangents, want, rtol=1e-12, atol=1e-12)


def test_inverses_under_autocast_keep_their_precision():
    x = image(*VECTOR).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = torch.linalg.inv(seed(x)[:, :4].reshape(-1, 2, 2) + 9 * torch.eye(2))
    assert out.value.dtype == out.tangents.dtype == torch.float32


def test_other_factors_and_triangles_go_by_autograd():
    x = image(*VECTOR)
    upper = partial(torch.linalg.cholesky, upper=True)
    assert_follows(lambda x: upper(square(x)[0]), x, by_autograd=["linalg_cholesky"])
    flat = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=D)
    out = seed(x[:, :4].reshape(-1, 2, 2) * 0 + flat)  # is singular
    with pytest.raises(InputError, match=r"linalg_det .* one of them is wrong"):
        torch.linalg.det(out)
    unit = partial(torch.linalg.solve_triangular, upper=True, unitriangular=True)
    assert_follows(lambda x: unit(*square(x)), x, by_autograd=["linalg_solve_triangular"])


@pytest.mark.parametrize("name", POSITIVE)
def test_functions_of_positive_numbers(name):
    f, shape = POSITIVE[name]
    assert_follows(f, positive(*shape), tolerance=1e-11)


@pytest.mark.parametrize("name", BOUNDED)
def test_functions_of_bounded_numbers(name):
    f, shape = BOUNDED[name]
    assert_follows(f, image(*shape).sigmoid() * 0.9, tolerance=1e-11)


@pytest.mark.parametrize("name", PIECES)
def test_functions_with_kinks_are_right_on_each_piece_and_named(name):
    f, shape, smoothness = PIECES[name]
    x = image(*shape)
    assert_follows(f, x)
    record = f(seed(x)).record
    assert min(record.kinks.values()) == smoothness
    assert record.smooth_to(smoothness)
    assert not record.smooth_to(smoothness + 1)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name):
    f, shape = ATTENTION[name]
    assert_follows(f, image(*shape), by_math(f))


def _centred_norm(axes, epsilon=1e-5):
    def norm(x):
        c = x - x.mean(axes, keepdim=True)
        return c / ((c * c).mean(axes, keepdim=True) + epsilon).sqrt()

    return norm


def test_layer_norm_against_its_formula():
    """torch's own second derivatives of these two are wrong."""
    w, b = weights(4, 6), weights(6)
    assert_follows(
        lambda x: F.layer_norm(x, (4, 6), w, b.expand(4, 6)),
        image(*SEQUENCE),
        lambda x: _centred_norm((1, 2))(x) * w + b,
    )
    assert_follows(lambda x: F.layer_norm(x, (6,)), image(*SEQUENCE), _centred_norm(-1))


def test_instance_norm_against_its_formula():
    w = weights(4)
    assert_follows(
        lambda x: F.instance_norm(x, weight=w, bias=w),
        image(*PICTURE),
        lambda x: _centred_norm((2, 3))(x) * w[:, None, None] + w[:, None, None],
    )


def _augmented(x):
    y = x * 1
    y += y.sin()
    y *= x
    y -= 1
    y /= 2
    return y


def _assigned(x):
    y = x * 1
    y[:, 1:3] = y[:, :2].sin()
    y[0] = 1.0
    return y * y


def _filled(x):
    out = x.new_zeros(4, 3)
    out[:, 1] = x[:, 0] * x[:, 1]
    return out.exp()


def _put(x):
    top = torch.ones(1, 6, dtype=D)
    return torch.cat([top, torch.cat([x[:, :1], x[:, :2].sin(), x[:, 3:]], 1)[1:]]) ** 2


IN_PLACE = {
    "augmented assignment": (_augmented, lambda x: ((x + x.sin()) * x - 1) / 2),
    "assignment": (_assigned, _put),
    "assignment into zeros": (
        _filled,
        lambda x: F.pad((x[:, :1] * x[:, 1:2]), (1, 1)).exp(),
    ),
    "methods": (
        lambda x: (x * 1).add_(x.sin()).mul_(2).sub_(1).div_(3).neg_().pow_(2),
        lambda x: ((2 * (x + x.sin()) - 1) / 3) ** 2,
    ),
    "functions": (
        lambda x: torch.tanh_(torch.sigmoid_(x * 1)).exp_(),
        lambda x: x.sigmoid().tanh().exp(),
    ),
    "zeroed and copied": (
        lambda x: (x * 1).zero_().copy_(x.sin()) + (x * 1).fill_(2.0),
        lambda x: x.sin() + 2,
    ),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_writing_in_place(name):
    f, reference = IN_PLACE[name]
    assert_follows(f, image(*VECTOR), reference)


def test_hardsigmoid():
    """torch's own slope is 1/6 in single precision."""
    assert_follows(lambda x: F.hardsigmoid(4 * x), image(*VECTOR), lambda x: F.relu6(4 * x + 3) / 6)


def test_grid_sample_is_linear():
    """torch has no forward derivative of it."""
    grid = weights(2, 3, 3, 2).tanh()
    jet = seed(image(*PICTURE))
    out = F.grid_sample(jet, grid, align_corners=False)
    for got, rows in zip((out.tangents, out.second), (jet.tangents, jet.second), strict=True):
        for mine, row in zip(got, rows, strict=True):
            torch.testing.assert_close(mine, F.grid_sample(row, grid, align_corners=False))


# Complex numbers


COMPLEX = {
    "linear": lambda z: F.linear(z, torch.complex(weights(3, 6), image(3, 6)), weights(3) * 1j),
    "powers": lambda z: z * z + z**3 / 6 - 1j * z + 1 / (3 + z),
    "analytic": lambda z: torch.tanh(z) + torch.sigmoid(z) + torch.exp(z) * torch.sin(z),
    "branches": lambda z: torch.log(4 + z) + torch.sqrt(4 + z) + torch.rsqrt(4 + z),
    "parts": lambda z: torch.complex(torch.tanh(z.real), torch.sigmoid(z.imag)),
    "conj": lambda z: z.conj() * z + z.conj().resolve_conj(),
    "modulus": lambda z: z * torch.sigmoid(z.abs()),
    "squared modulus": lambda z: z / torch.sqrt(1 + z.real**2 + z.imag**2),
    "pairs": lambda z: torch.view_as_complex(torch.view_as_real(z).tanh()),
    "adjoint": lambda z: z @ z.mH,
    "angle": lambda z: torch.angle(4 + z),
    "polar": lambda z: torch.polar(z.abs(), z.angle() * 2),
    "real products": lambda z: z.real @ weights(6, 2) + (z.imag * z.real)[:, :2],
    "einsum": lambda z: torch.einsum("bi,bj->bij", z, z.conj()),
    "norm": lambda z: torch.linalg.vector_norm(z, dim=-1),
    "cat": lambda z: torch.cat([z, z.real.to(z.dtype), z.conj()], -1),
    "promotion": lambda z: z.real + 1j * z.imag.sin() + torch.ones(6, dtype=D),
    "fft": lambda z: torch.fft.fft(z) * torch.fft.ifft(z),
    "cholesky": lambda z: torch.linalg.cholesky(square(z)[0]),
    "solve": lambda z: torch.linalg.solve(torch.eye(2) + z[:, :4].reshape(-1, 2, 2), square(z)[1]),
    "det": lambda z: torch.linalg.det(3 * torch.eye(2) + z[:, :4].reshape(-1, 2, 2)),
    "inverse": lambda z: torch.linalg.inv(3 * torch.eye(2) + z[:, :4].reshape(-1, 2, 2)),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_functions_along_real_directions(name):
    z = torch.complex(image(*VECTOR), weights(*VECTOR))
    assert_follows(COMPLEX[name], z, tolerance=1e-11)


# The register


def _torch_names():
    spaces = (torch, torch.Tensor, torch._C._nn, F, torch.special, torch.linalg, torch.fft)
    names = {name for space in spaces for name in dir(space)}
    names |= {f"special_{name}" for name in dir(torch.special)}
    names |= {f"linalg_{name}" for name in dir(torch.linalg)}
    names |= {f"fft_{name}" for name in dir(torch.fft)}
    return names | set(dir(torch._C._VariableFunctions))


def test_rules_are_for_functions_that_torch_has():
    assert set(RULES) - {"activation"} <= _torch_names()


def test_a_new_function_is_one_rule(monkeypatch):
    monkeypatch.setattr("kahler_verify.rules.registry._RULES", dict(RULES))
    x = image(*VECTOR)
    assert_follows(torch.sinc, x, by_autograd=["sinc"], tolerance=1e-9)

    @rule("sinc")
    def sinc(call, x):
        t = math.pi * x.value
        sine, cosine = t.sin(), t.cos()
        slope = math.pi * (cosine / t - sine / t**2)
        curvature = math.pi**2 * (-sine / t - 2 * cosine / t**2 + 2 * sine / t**3)
        return chain(x, call(x.value), slope, curvature)

    assert find("sinc").function is sinc
    assert_follows(torch.sinc, x, tolerance=1e-9)


def test_two_rules_for_one_function_are_an_error():
    with pytest.raises(Exception, match="two rules"):
        rule("tanh")(lambda call, x: x)


@pytest.mark.parametrize("kind", [torch.nn.GRU, torch.nn.LSTM])
def test_recurrent_layers_take_one_input_many_times(kind):
    """An expanded input shares memory, which forward mode refuses."""
    layer = kind(3, 4, batch_first=True).double().requires_grad_(False)

    def decode(x, times=lambda x: x[:, None].expand(-1, 5, -1)):
        return layer(times(x))[0]

    copied = lambda x: decode(x, lambda x: x[:, None].repeat(1, 5, 1))  # noqa: E731
    assert_follows(decode, weights(2, 3), copied, by_autograd=(kind.__name__.lower(),))


def test_softmax_has_a_batching_rule() -> None:
    """Torch's vmap has none for addcmul in place, and says so."""
    decoder = nn.Sequential(nn.Linear(2, 4), nn.Softmax(-1), nn.Linear(4, 3)).double()
    metric, z = FisherMetric(decoder).on_real_latents, torch.randn(5, 2, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = torch.func.vmap(metric.metric_matrix)(z)
    torch.testing.assert_close(found, metric.metric_matrix(z))


def test_a_threshold_has_no_derivative_where_torch_has_none() -> None:
    """At the threshold, and where the constant beyond it happens to be x."""
    x = torch.tensor([0.0, -1.0, 2.0], dtype=torch.float64)
    out = propagate(lambda z: F.threshold(z, 0.0, -1.0), x[None], 1)
    torch.testing.assert_close(out.d.squeeze(), torch.diag(torch.tensor([0.0, 0.0, 1.0])).to(x))
