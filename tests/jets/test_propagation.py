"""Jets through whole modules as they stand, against torch.func and finite differences."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
)
from torch.func import jacrev, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from kahler_verify import FisherMetric
from kahler_verify.errors import InputError
from kahler_verify.jets import Jet, parameters, propagate, values
from kahler_verify.rules import RULES

D = torch.float64


def prepared(module, seed=0):
    torch.manual_seed(seed)
    module = module.to(D).eval()
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.randn_like(tensor) * 0.4
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            buffer.data = torch.rand_like(buffer) + 0.5
    return module


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class ResidualBlock(nn.Module):
    """As in the decoder of diffusers' AutoencoderKL."""

    def __init__(self, channels, out):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(2, channels), nn.GroupNorm(2, out)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.dropout = nn.Dropout(0.1)
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return (self.skip(x) + h) / math.sqrt(2)


class Attention(nn.Module):
    def __init__(self, channels, heads=2):
        super().__init__()
        self.norm = nn.GroupNorm(2, channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.heads = heads

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.norm(x).view(b, c, h * w).transpose(1, 2)
        q, k, v = (
            t.view(b, -1, self.heads, c // self.heads).transpose(1, 2)
            for t in self.qkv(y).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, -1, c)
        return x + self.out(y).transpose(1, 2).reshape(b, c, h, w)


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.position = nn.Linear(3, 12), nn.Parameter(torch.zeros(3, 4))
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, activation="gelu")
        self.pool, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 5)

    def forward(self, z):
        h = self.layer(self.first(z).view(-1, 3, 4) + self.position)
        h, weights = self.pool(h[:, :1], h, h)
        return self.out(h.squeeze(1)) * (1 + weights.sum((1, 2)).unsqueeze(-1).log1p())


def image_decoder():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        ResidualBlock(4, 4),
        Attention(4),
        ResidualBlock(4, 2),
        Upsample(2),
        nn.GroupNorm(1, 2),
        nn.SiLU(),
        nn.Conv2d(2, 3, 3, padding=1),
    )


def dcgan():
    return nn.Sequential(
        nn.Unflatten(1, (3, 1, 1)),
        nn.ConvTranspose2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ELU(inplace=True),
        nn.ConvTranspose2d(4, 2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(2),
        nn.Softplus(),
        nn.ConvTranspose2d(2, 1, 4, 2, 1),
        nn.Tanh(),
    )


ZOO = {
    "mlp": (
        lambda: nn.Sequential(
            nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 5)
        ),
        (3,),
    ),
    "dcgan": (dcgan, (3,)),
    "image": (image_decoder, (2, 2, 2)),
    "transformer": (Transformer, (3,)),
    "layer norm": (
        lambda: nn.Sequential(
            nn.Linear(3, 8), nn.SiLU(), nn.GroupNorm(2, 8), nn.Mish(), nn.Linear(8, 4)
        ),
        (3,),
    ),
    "weight norm": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2)
        ),
        (3,),
    ),
    "1d": (
        lambda: nn.Sequential(
            nn.Linear(3, 12),
            nn.Unflatten(1, (3, 4)),
            nn.ConvTranspose1d(3, 2, 4, 2, 1),
            nn.Sigmoid(),
        ),
        (3,),
    ),
    "pixel shuffle": (
        lambda: nn.Sequential(
            nn.Linear(3, 16),
            nn.Unflatten(1, (4, 2, 2)),
            nn.SiLU(),
            nn.PixelShuffle(2),
            nn.AvgPool2d(2),
            nn.Flatten(),
        ),
        (3,),
    ),
    "lstm": (lambda: Lambda(None), (3,)),
}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(3, 4, batch_first=True)

    def forward(self, z):
        return self.cell(z[:, None].repeat(1, 2, 1))[0]


ZOO["lstm"] = (Recurrent, (3,))


def points(shape, batch=2):
    return torch.randn(batch, *shape, dtype=D, generator=torch.Generator().manual_seed(7))


def contracted_hessian(f, z, c):
    """Σ c ∂∂f at each point, by reverse over reverse."""

    def at(x, weight):
        n = x.numel()
        h = jacrev(jacrev(lambda p: (f(p[None])[0] * weight).sum()))(x)
        return h.reshape(n, n)

    return torch.stack([at(x, weight) for x, weight in zip(z, c, strict=True)])


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name):
    make, shape = ZOO[name]
    module, z = prepared(make()), points(shape)
    with torch.no_grad():
        out = propagate(module, z, 2)
    n = z[0].numel()
    eye = torch.eye(n, dtype=D).reshape(n, 1, *shape).expand(n, *z.shape)
    with sdpa_kernel(SDPBackend.MATH):
        first = vmap(lambda t: jvp(module, (z,), (t,))[1])(eye).detach()
        torch.testing.assert_close(out.value, module(z).detach(), rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(out.tangents, first, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(out.d, first.movedim(0, 1), rtol=1e-12, atol=1e-12)
        c = torch.randn_like(out.value)
        want = contracted_hessian(module, z, c).detach()
    got = torch.einsum("bijn,bn->bij", out.dd.flatten(3), c.flatten(1))
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    assert set(out.record.autograd) == ({"gru"} if name == "lstm" else set())
    torch.testing.assert_close(propagate(module, z).tangents, out.tangents)


def test_along_a_curve():
    module, z = prepared(dcgan()), points((3,))
    v, a = points((2, 3)), points((1, 3)).expand(2, 2, 3)
    out = propagate(module, z, 2, v, along=True, acceleration=a)
    full = propagate(module, z, 2)
    expected = torch.einsum("bijn,bri,brj->brn", full.dd.flatten(3), v, v)
    expected = expected + torch.einsum("bin,bri->brn", full.d.flatten(2), a)
    torch.testing.assert_close(out.dd.flatten(2), expected)
    torch.testing.assert_close(out.d.flatten(2), torch.einsum("bin,bri->brn", full.d.flatten(2), v))
    straight = propagate(module, z, 2, v, along=True)
    torch.testing.assert_close(
        straight.dd.flatten(2), torch.einsum("bijn,bri,brj->brn", full.dd.flatten(3), v, v)
    )
    pairs = propagate(module, z, 2, v)
    torch.testing.assert_close(
        pairs.dd.flatten(3), torch.einsum("bijn,bri,bsj->brsn", full.dd.flatten(3), v, v)
    )


# What modules return


@dataclasses.dataclass
class Output:
    sample: torch.Tensor
    note: str = "as it was"


class Heads(nn.Module):
    def __init__(self, finish):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 8))
        self.finish = finish

    def forward(self, z):
        return self.finish(*self.body(z).chunk(2, -1))


def _mean(z, module):
    return module.body(z).chunk(2, -1)[0]


STRUCTURES = {
    "tuple": (lambda m, s: (m, s), lambda out: out[0]),
    "list": (lambda m, s: [m, s, None], lambda out: out[0]),
    "dictionary": (lambda m, s: {"mean": m, "rest": [s, 3]}, lambda out: out["mean"]),
    "dataclass": (lambda m, s: Output(m), lambda out: out.sample),
    "normal": (
        lambda m, s: Independent(Normal(m, s.exp()), 1),
        lambda out: parameters(out)["base_dist.loc"],
    ),
    "validated": (
        lambda m, s: Normal(m, F.softplus(s), validate_args=True),
        lambda out: parameters(out)["loc"],
    ),
    "bernoulli": (lambda m, s: Bernoulli(logits=m), lambda out: parameters(out)["logits"]),
    "multivariate": (
        lambda m, s: MultivariateNormal(m, scale_tril=torch.diag_embed(s.exp())),
        lambda out: parameters(out)["loc"],
    ),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_of_outputs(name):
    finish, get = STRUCTURES[name]
    module, z = prepared(Heads(finish)), points((3,), 5)
    out = propagate(module, z)
    jet = get(out)
    assert isinstance(jet, Jet)
    want = vmap(jacrev(lambda p: _mean(p, module)))(z).movedim(-1, 1)
    torch.testing.assert_close(jet.d, want)
    plain = get(values(out))
    assert not isinstance(plain, Jet)
    torch.testing.assert_close(plain, _mean(z, module))
    chunked = get(propagate(module, z, 2, chunk_size=2))
    torch.testing.assert_close(chunked.d, want)
    torch.testing.assert_close(chunked.dd, get(propagate(module, z, 2)).dd)


def test_plain_laws_have_densities():
    module, z = prepared(Heads(lambda m, s: Independent(Normal(m, s.exp()), 1))), points((3,), 5)
    x = torch.zeros(5, 4, dtype=D)
    law = values(propagate(module, z, chunk_size=2))
    torch.testing.assert_close(law.log_prob(x), module(z).log_prob(x))
    assert law.batch_shape == (5,)


def test_categorical_logits_are_normalised_by_torch():
    module, z = prepared(Heads(lambda m, s: Categorical(logits=m))), points((3,), 5)
    out = parameters(propagate(module, z, 2))["logits"]
    want = vmap(jacrev(lambda p: F.log_softmax(_mean(p, module), -1)))(z).movedim(-1, 1)
    torch.testing.assert_close(out.d, want)


def test_constants_have_no_derivatives():
    module = nn.Module()
    module.scale = nn.Parameter(torch.ones(2, 4, dtype=D))
    module.forward = lambda z: (z * 2, module.scale)
    out = propagate(module, points((3,)), 2)
    assert not out[1].varies
    assert out[1].d.shape == (2, 3, 4)
    assert out[1].dd.shape == (2, 3, 3, 4)
    assert float(out[1].dd.abs().max()) == 0


def test_checks_of_distributions_are_not_taken_for_the_module():
    module = prepared(Heads(lambda m, s: OneHotCategorical(logits=m)))
    record = parameters(propagate(module, points((3,))))["_categorical.logits"].record
    assert record.lines() == []
    assert torch.distributions.Distribution._validate_args


# Heads


def test_a_last_linear_map_waits():
    module, z = prepared(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6))), points((3,))
    location, scale = points((6,), 1)[0], points((6,), 1)[0].exp()
    out = propagate(lambda z: -((location + module(z) * scale) / 2 - 1), z)
    head = out.head
    rebuilt = head.hidden.value @ head.weight.mT + head.bias
    torch.testing.assert_close(rebuilt, out.value)
    torch.testing.assert_close(head.hidden.first @ head.weight.mT, out.tangents)
    halves = propagate(lambda z: module(z).chunk(2, -1), z)
    sliced = propagate(lambda z: module(z)[:, 1:4], z)
    for part, rows in ((halves[1], slice(3, 6)), (sliced, slice(1, 4))):
        torch.testing.assert_close(part.head.weight, module[2].weight[rows])
        torch.testing.assert_close(part.head.bias, module[2].bias[rows])
        torch.testing.assert_close(part.tangents, part.head.hidden.first @ part.head.weight.mT)
    assert propagate(lambda z: module(z).sin(), z).head is None
    assert propagate(lambda z: module(z).flip(0), z).head is None


def test_a_last_value_waits_where_it_has_no_graph():
    module, z = prepared(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6))), points((3,))
    seen = []

    def watched(z):
        out = module(z)
        waiting = out.expansion._value is None
        assert (out.shape, out.dtype, out.ndim) == ((2, 6), D, 2)
        assert out.size(-1) == 6
        assert out.flatten(1) is out
        assert (out.expansion._value is None) == waiting
        assert out.is_contiguous()
        assert torch.numel(input=out) == 12
        seen.append(waiting)
        return out

    with torch.no_grad():
        out = propagate(watched, z)
    assert torch.equal(out.value, module(z))
    assert not out.value.requires_grad
    assert propagate(watched, z).value.requires_grad
    for options in ({"dtype": torch.bfloat16}, {"enabled": False}):
        with torch.autocast("cpu", **options), torch.no_grad():
            inside, plain = propagate(watched, z), module(z)
        assert torch.equal(inside.value, plain)
        assert inside.value.dtype == plain.dtype
    assert seen == [True, False, False, True]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), torch.no_grad():
        propagate(lambda z: module[2](z), z)


def test_what_waits_is_not_cast_by_who_asks_for_it():
    first, last = nn.Linear(3, 8), nn.Linear(8, 5)

    def module(z):
        h = first(z)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = h.sin()
        return last(h)

    z = points((3,)).float()
    with torch.no_grad():
        out = propagate(module, z)
        assert torch.equal(out.value, module(z))
    torch.testing.assert_close(out.tangents, vmap(lambda t: jvp(module, (z,), (t,))[1])(
        torch.eye(3)[:, None].expand(3, 2, 3)).detach())  # fmt: skip


def test_weights_and_factors_that_are_written_meanwhile():
    layer, z, factor = prepared(nn.Linear(3, 3)), points((3,)), torch.full((3,), 2.0, dtype=D)

    def written_factor(z):
        h = layer(z).tanh() * factor
        factor.fill_(0.5)
        h = h * factor
        factor.fill_(2.0)
        return h.sin()

    def written_weight(z):
        h = layer(z)
        layer.weight.mul_(2)
        return h.tanh()

    wanted = vmap(lambda t: jvp(lambda z: layer(z).tanh().sin(), (z,), (t,))[1])(
        torch.eye(3, dtype=D)[:, None].expand(3, 2, 3)
    )
    with torch.no_grad():
        out = propagate(written_factor, z)
        torch.testing.assert_close(out.tangents, wanted)
        with pytest.raises(InputError, match="weights of a linear layer to stay as they are"):
            propagate(written_weight, z)


@pytest.mark.parametrize(
    "behind", [lambda h: 3 * h, lambda h: h + 1, lambda h: h[:, :2], lambda h: h.chunk(2, -1)[0]]
)
def test_written_weights_behind_what_takes_a_head_in(behind):
    layer = prepared(nn.Linear(3, 4))

    def module(z):
        h = layer(z)
        with torch.no_grad():
            layer.weight.mul_(2)
        return behind(h)

    with pytest.raises(InputError, match="weights of a linear layer to stay as they are"):
        propagate(module, points((3,)))


def test_weights_that_each_call_bounds():
    class Bounded(nn.Linear):
        def forward(self, z):
            with torch.no_grad():
                self.weight.clamp_(-0.3, 0.3)
            return super().forward(z)

    module, z = prepared(Bounded(3, 4)), points((3,))
    first = propagate(module, z)
    torch.testing.assert_close(propagate(module, z, chunk_size=1).d, first.d)
    first.value.sum().backward()
    with torch.no_grad():
        module.weight.zero_()
    assert bool((first.d != 0).any())  # as they were


def test_tensors_without_numbers():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).to("meta")
    assert propagate(module, torch.randn(2, 3, device="meta")).d.shape == (2, 3, 4)


def test_factors_that_are_out_of_range_together():
    small = torch.full((3,), 1e-25)

    def module(z):
        return torch.sinh(z) * small * small * torch.full((3,), 1e25)

    with torch.no_grad():
        d = propagate(module, torch.full((2, 3), 60.0)).d
    torch.testing.assert_close(d.sum(-1), (1e-25 * torch.full((2, 3), 60.0).cosh()))


def test_a_factor_has_no_graph_where_gradients_are_off():
    layer, factor = prepared(nn.Linear(3, 4)), points((4,), 1)[0].exp()

    def module(z):
        h = layer(z).tanh()
        with torch.no_grad():
            h = h * factor
        return h.sin()

    assert not propagate(module, points((3,))).d.requires_grad


def test_a_sum_has_derivatives_of_its_own_precision():
    def module(z):
        return torch.where(z.detach() > 0, z.sin(), torch.zeros(3, dtype=D)) + 1.0

    out = propagate(module, points((3,)).float())
    assert out.value.dtype == out.d.dtype == D


def test_values_of_images_lie_in_memory_as_torch_has_them():
    first, last = nn.Linear(2, 32), nn.ConvTranspose2d(8, 6, 4, 2, 1)
    z = points((2,), 70).float()

    def written(z):
        h = last(first(z).view(-1, 8, 2, 2))
        assert h.is_contiguous()
        assert h.view(len(h), -1).shape == (70, 96)
        part = h.flatten(1)
        part[:, 0] = 5.0
        return h.tanh()

    with torch.no_grad():
        torch.testing.assert_close(propagate(written, z).value, written(z))


def test_channels_last_under_vmap():
    layer = prepared(nn.Linear(3, 16))

    def images(z):
        return layer(z).reshape(-1, 2, 2, 4).permute(0, 3, 1, 2).tanh().flatten(1)

    z = torch.stack([points((3,)), points((3,)) / 2])
    with torch.no_grad():
        found = vmap(lambda z: propagate(images, z, 2).dd)(z)
        torch.testing.assert_close(found[1], propagate(images, z[1], 2).dd)


def test_constants_that_wait_have_no_graph_later():
    module, z = prepared(dcgan()), points((3,))
    with torch.no_grad():
        out = propagate(nn.Sequential(*list(module)[:4]), z)
    assert not out.tangents.requires_grad
    with torch.no_grad():
        whole = propagate(nn.Sequential(*list(module)[:4]), z).tangents
    assert torch.equal(out.tangents, whole)


def test_images_with_channels_last_have_the_same_derivatives():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(3, 8 * 4),
        nn.Unflatten(1, (8, 2, 2)),
        nn.ConvTranspose2d(8, 6, 4, 2, 1),
        nn.BatchNorm2d(6),
        nn.SiLU(),
        nn.ConvTranspose2d(6, 5, 4, 2, 1),
        nn.GroupNorm(5, 5),
        nn.Tanh(),
        nn.Flatten(),
    ).eval()
    z = points((3,), 30)
    with torch.no_grad():
        single = propagate(module, z.float(), 2)
        double = propagate(module.double(), z, 2)
    for a, b in ((single.d, double.d), (single.dd, double.dd), (single.value, double.value)):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


def test_batches_as_long_as_outputs_are_not_taken_for_them():
    """A part of the points is not a part of the outputs, even where there are as many."""
    module, z = prepared(nn.Linear(3, 4)), points((3,), 4)
    out = propagate(lambda z: module(z)[:2], z)
    assert out.head is None
    torch.testing.assert_close(out.tangents, propagate(module, z).tangents[:, :2])
    scaled = propagate(lambda z: module(z) * torch.arange(4.0, dtype=D)[:, None], z)
    torch.testing.assert_close(
        scaled.tangents, propagate(module, z).tangents * torch.arange(4.0, dtype=D)[:, None]
    )


# Gradients


def test_gradients_by_weights_and_by_z():
    module, z = prepared(dcgan()), points((3,)).requires_grad_()
    out = propagate(module, z, 2)
    loss = (out.tangents**2).sum() + out.second.sin().sum()
    mine = torch.autograd.grad(loss, [z, *module.parameters()])
    eye = torch.eye(3, dtype=D)

    def along(v, w):
        inner = lambda p: jvp(module, (p,), (v.expand_as(z),))[1]  # noqa: E731
        return jvp(inner, (z,), (w.expand_as(z),))[1]

    torch.nn.functional.softplus  # noqa: B018  (its second forward derivative is what is used)
    first = torch.stack([jvp(module, (z,), (v.expand_as(z),))[1] for v in eye])
    second = torch.stack([along(eye[i], eye[j]) for i in range(3) for j in range(i, 3)])
    theirs = torch.autograd.grad((first**2).sum() + second.sin().sum(), [z, *module.parameters()])
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_without_gradients_nothing_is_kept():
    module, z = prepared(dcgan()), points((3,))
    with torch.no_grad():
        out = propagate(module, z)
    assert not out.tangents.requires_grad
    with torch.inference_mode():
        assert propagate(module, z, 2).tangents.shape == (3, 2, 1, 12, 12)


def test_single_precision_and_empty_batches():
    module = prepared(dcgan()).float()
    out = propagate(module, points((3,)).float(), 2)
    assert out.second.dtype == torch.float32
    assert propagate(module, torch.zeros(0, 3), 2).dd.shape == (0, 3, 3, 1, 12, 12)


# Hooks, subclasses, parametrisations


def test_hooks_and_subclasses_count():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    module, z = prepared(nn.Sequential(Doubled(3, 4), nn.Tanh())), points((3,))
    module[1].register_forward_hook(lambda layer, inputs, output: output * output)
    eye = torch.eye(3, dtype=D)[:, None].expand(3, 2, 3)
    want = vmap(lambda t: jvp(module, (z,), (t,))[1])(eye)
    torch.testing.assert_close(propagate(module, z).tangents, want)


def test_custom_autograd_functions_are_differentiated_as_they_compute():
    class Cubed(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x**3

        @staticmethod
        def backward(context, gradient):
            return gradient  # wrong, and not asked

    z = points((3,))
    out = propagate(lambda z: Cubed.apply(z).sum(-1), z)
    torch.testing.assert_close(out.d, 3 * z**2)


# What is met on the way


def test_detached_values_are_named():
    z = points((3,))
    out = propagate(lambda z: z * z.detach(), z)
    assert out.record.stopped == {"detach": 1}
    assert "derivatives end there" in repr(out)
    torch.testing.assert_close(out.d, torch.diag_embed(z))
    out = propagate(lambda z: z * z.data + float(z.sum()), z)
    assert out.record.stopped == {"detach": 1, "__float__": 1}


def test_branches_and_blocked_gradients_are_named():
    module, z = prepared(nn.Linear(3, 3)), points((3,))

    def branching(z):
        with torch.no_grad():
            h = module(z)
        return h if bool((h > 0).any()) else -h

    out = propagate(branching, z)
    assert out.record.branches == {"__bool__": 1}
    assert out.record.opaque_gradients["linear"] == 1
    torch.testing.assert_close(out.d, module.weight.mT.expand(2, 3, 3))


def test_unknown_functions_are_checked_and_named():
    z = points((4,)) * 0.3 + torch.eye(2, dtype=D).flatten()

    def f(z):
        return torch.linalg.pinv(z.view(-1, 2, 2)).flatten(1)

    out = propagate(f, z, 2)
    assert out.record.autograd == {"linalg_pinv": 1}
    assert "linalg_pinv (1x): differentiated by autograd" in repr(out)
    c = torch.randn_like(out.value)
    want = contracted_hessian(f, z, c)
    torch.testing.assert_close(torch.einsum("bijn,bn->bij", out.dd, c), want)


def _inverse(z):
    a = z.view(-1, 2, 2)
    return a @ a.mT + torch.eye(2, dtype=D)


WRONG_IN_TORCH = {
    "cholesky_inverse": (lambda z: torch.cholesky_inverse(torch.linalg.cholesky(_inverse(z))), 1),
    "det": (lambda z: torch.linalg.det(_inverse(z)), 2),
    "slogdet": (lambda z: torch.linalg.slogdet(_inverse(z))[1], 2),
    "solve": (lambda z: torch.linalg.solve(_inverse(z), torch.ones(2, 1, dtype=D)), 2),
}


@pytest.mark.parametrize("name", WRONG_IN_TORCH)
def test_derivatives_that_torch_gets_wrong_are_refused_or_right(name):
    """Another version of torch may have mended them."""
    f, order = WRONG_IN_TORCH[name]
    z = points((4,))
    try:
        out = propagate(f, z, order)
    except InputError as error:
        assert "one of them is wrong" in str(error)  # noqa: PT017
        return
    c = torch.ones_like(out.value)
    if order == 2:
        want = contracted_hessian(f, z, c)
        got = torch.einsum("bijn,bn->bij", out.dd.reshape(2, 4, 4, -1), c.reshape(2, -1))
    else:
        want = torch.stack([jacrev(lambda p: f(p[None]).sum())(x) for x in z])
        got = out.d.flatten(2).sum(-1)
    torch.testing.assert_close(got, want)


UNKNOWN = {
    "cumprod": lambda z: z.cumprod(-1),  # ∂_1∂_1 vanishes
    "meshgrid": lambda z: torch.meshgrid(z[0], z[1], indexing="ij")[0],
    "atan2": lambda z: torch.atan2(z, z * z + 3),
    "index_add": lambda z: z.index_add(1, torch.tensor([0, 1]), z[:, :2] ** 2),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_functions(name):
    z, f = points((4,)), UNKNOWN[name]
    out = propagate(f, z, 2)
    assert sum(out.record.autograd.values()) >= 1
    eye = torch.eye(4, dtype=D)
    h = 1e-4
    for i in range(4):
        step = h * eye[i]
        want = (f(z + step) - f(z - step)) / (2 * h)
        torch.testing.assert_close(out.tangents[i], want, rtol=1e-6, atol=1e-6)
        again = propagate(f, z + step).d, propagate(f, z - step).d
        bend = (again[0] - again[1]) / (2 * h)
        torch.testing.assert_close(out.dd[:, i], bend, rtol=1e-6, atol=1e-6)


def test_functions_without_forward_mode(monkeypatch):
    """torch has no second forward derivative of silu; reverse mode twice is one."""
    z = points((4,))
    expected = propagate(F.silu, z, 2)
    rules = {name: each for name, each in RULES.items() if name != "silu"}
    monkeypatch.setattr("kahler_verify.rules.registry._RULES", rules)
    out = propagate(F.silu, z, 2)
    assert out.record.autograd == {"silu": 1}
    torch.testing.assert_close(out.dd, expected.dd)
    torch.testing.assert_close(out.d, expected.d)


def test_what_torch_cannot_differentiate_is_refused():
    with pytest.raises(InputError, match="does not differentiate"):
        propagate(lambda z: torch.cdist(_inverse(z), _inverse(z) + 1, p=3.0), points((4,)))


REFUSED = {
    "dropout": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), "dropout.*'1'"),
    "batch norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "batch norm.*'1'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_in_training_mode_are_refused_by_name(name):
    make, message = REFUSED[name]
    module = make().to(D)
    with pytest.raises(InputError, match=message):
        propagate(module, points((3,)))
    propagate(module.eval(), points((3,)))


def _into_plain(z):
    out = torch.zeros(2, 3, dtype=D)
    out[:, :1] = z[:, :1]
    return out


MISUSE = {
    "random": (lambda z: z + torch.randn_like(z), "random"),
    "numpy": (lambda z: z.numpy(), "numpy"),
    "into a plain tensor": (_into_plain, "new_zeros"),
    "out": (lambda z: torch.add(z, z, out=torch.empty(2, 3, dtype=D)), "out"),
    "backward": (lambda z: z.sum().backward(), "backward"),
    "in place into another shape": (lambda z: z[:, :1].mul_(z), "shape"),
}


@pytest.mark.parametrize("name", MISUSE)
def test_what_cannot_be_followed_is_refused(name):
    f, message = MISUSE[name]
    with pytest.raises(InputError, match=message):
        propagate(f, points((3,)))


def _into_the_base(z):
    h = z * 1
    view, part = h[:, :2], h.unsqueeze(1).chunk(3, -1)[2]
    h.mul_(z)
    return torch.cat([view, part[:, 0] * 2], -1)


def _into_views(z):
    h = z * 1
    h[:, :2].T.mul_(2).sin_()
    first, *rest = h.view(-1, 1, 3).unbind(-1)
    first += rest[1]
    return h


def _into_the_diagonal(z):
    h = z[:, None, :] * z[:, :, None]
    h.view(-1, 9)[:, ::4] += 1
    return h.sin()


def _into_a_copy(z):
    h = (z[:, None, :] * z[:, :, None]).transpose(1, 2)
    h.reshape(-1, 9).mul_(2)  # copies here, so that h stays what it was
    return h


WRITTEN_THROUGH = {
    "the base": (
        _into_the_base,
        lambda z: torch.cat([z[:, :2] ** 2, 2 * z[:, 2:] ** 2], -1),
    ),
    "views": (
        _into_views,
        lambda z: torch.cat([(2 * z[:, :1]).sin() + z[:, 2:], (2 * z[:, 1:2]).sin(), z[:, 2:]], -1),
    ),
    "the diagonal": (
        _into_the_diagonal,
        lambda z: (z[:, None, :] * z[:, :, None] + torch.eye(3, dtype=D)).sin(),
    ),
    "a copy": (_into_a_copy, lambda z: z[:, None, :] * z[:, :, None]),
}


@pytest.mark.parametrize("name", WRITTEN_THROUGH)
def test_what_is_written_is_seen_through_views(name):
    f, reference = WRITTEN_THROUGH[name]
    z = points((3,))
    torch.testing.assert_close(f(z), reference(z))  # torch itself
    out, want = propagate(f, z, 2), propagate(reference, z, 2)
    torch.testing.assert_close(out.value, want.value)
    torch.testing.assert_close(out.d, want.d)
    torch.testing.assert_close(out.dd, want.dd)


def test_low_rank_normals_write_through_a_view():
    def law(z):
        return LowRankMultivariateNormal(z, z[..., None].sin(), z.exp())

    out = parameters(propagate(law, points((3,)), 2))
    torch.testing.assert_close(out["loc"].d, torch.eye(3, dtype=D).expand(2, 3, 3))


def test_views_of_what_is_gone_may_be_written_into():
    module, z = prepared(nn.Linear(3, 4)), points((3,))

    def f(z):
        h = module(z).view(-1, 2, 2)
        return F.relu(h, inplace=True)

    torch.testing.assert_close(
        propagate(f, z).tangents, propagate(lambda z: F.relu(module(z).view(-1, 2, 2)), z).tangents
    )


ARGUMENTS = {
    "no tensor": ((3.0,), {}, "z: expected a tensor"),
    "no batch": ((torch.zeros(3),), {}, "at least two axes"),
    "integers": ((torch.zeros(2, 3, dtype=torch.long),), {}, "real or complex"),
    "order": ((torch.zeros(2, 3), 3), {}, "order: expected 1 or 2"),
    "along nothing": ((torch.zeros(2, 3), 2), {"along": True}, "along: expected"),
    "acceleration": (
        (torch.zeros(2, 3), 2),
        {"acceleration": torch.zeros(2, 1, 3)},
        "acceleration: expected along",
    ),
    "directions": ((torch.zeros(2, 3), 1, torch.zeros(2, 3)), {}, "directions: expected"),
    "directions of another dtype": (
        (torch.zeros(2, 3), 1, torch.zeros(2, 1, 3, dtype=D)),
        {},
        "directions: expected",
    ),
    "accelerations": (
        (torch.zeros(2, 3), 2, torch.zeros(2, 2, 3)),
        {"along": True, "acceleration": torch.zeros(2, 1, 3)},
        "one for each",
    ),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_malformed_arguments(name):
    positional, named, message = ARGUMENTS[name]
    with pytest.raises(InputError, match=message):
        propagate(lambda z: z, *positional, **named)


def test_compiled_code_is_refused():
    with pytest.warns(DeprecationWarning, match="script"):
        scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.Tanh()).to(D).eval())
    with pytest.raises(InputError, match="TorchScript"):
        propagate(scripted, points((3,)))
    with pytest.raises(InputError, match="TorchScript"):
        FisherMetric(scripted).metric_matrix(points((3,)).real)


class Detached(torch.autograd.Function):
    """Whose backward is right, and whose forward says nothing of it."""

    @staticmethod
    def forward(ctx, x):
        y = x.detach().tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, by_out):
        return by_out * (1 - ctx.saved_tensors[0] ** 2)


class Late(Detached):
    @staticmethod
    def forward(x):
        return x.detach().tanh()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)


@pytest.mark.parametrize("function", [Detached, Late])
def test_a_function_that_hides_its_derivative_is_refused(function):
    message = f"detach is called in {function.__name__}, a torch.autograd.Function"
    with pytest.raises(InputError, match=message):
        propagate(lambda z: function.apply(2 * z), points((3,)))
    constant = function.apply(torch.ones(3, dtype=D))  # of what does not vary
    assert propagate(lambda z: z * constant, points((3,))).value.shape[-1] == 3


def test_first_order_has_no_second():
    with pytest.raises(InputError, match="order=2"):
        propagate(lambda z: z, points((3,))).dd  # noqa: B018
