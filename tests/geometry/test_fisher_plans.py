"""Reduced heads, chunks and single directions give what whole jets give."""

import copy
import gc
import math
import threading

import pytest
import torch
from torch.autograd import forward_ad

from kahler_verify.errors import InputError
from kahler_verify.geometry import FisherMetric, MixtureMetric, PotentialMetric, fisher
from kahler_verify.linear_algebra.heads import reduced, reduced_real
from kahler_verify.linear_algebra.planes import Weight
from kahler_verify.models.vae import VAEConfig
from kahler_verify.networks.decoder import Decoder

KINDS = [
    ("cubic", "complex"),
    ("tanh", "complex"),
    ("split_tanh", "complex"),
    ("modulus_sigmoid", "complex"),
    ("split_gelu", "real"),
]
COVARIANCES = ["constant", "scalar", "diagonal"]
QUANTITIES = [
    "metric_matrix",
    "complementary_part",
    "real_metric_matrix",
    "log_det_hermitian",
    "log_volume",
]


def _decoder(activation="cubic", likelihood="complex", covariance="constant", *, d=3, D=17, h=6):
    torch.manual_seed(3)
    family = activation.split("_")[0] if "_" in activation else "holomorphic"
    config = VAEConfig(
        data_dim=D,
        latent_dim=d,
        hidden=(h, h),
        decoder=family,
        activation=activation,
        covariance=covariance,
        likelihood=likelihood,
    )
    decoder = Decoder(config).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        decoder.scale.fill_(1.3)
    return decoder


def _points(d=3, count=7):
    torch.manual_seed(4)
    return 0.5 * torch.randn(count, d, dtype=torch.complex128)


def _by_autograd(decoder):
    """The same metric without any closed form: a function is not recognised."""
    return FisherMetric(lambda z: decoder(z), check=False)


def _assert_same(got, expected, tolerance=1e-12):
    size = 1 + expected.abs().max().item()
    assert got.shape == expected.shape
    assert (got - expected).abs().max().item() <= tolerance * size


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize(("activation", "likelihood"), KINDS)
def test_every_fold_gives_the_metric_of_whole_jets(activation, likelihood, covariance):
    decoder, z = _decoder(activation, likelihood, covariance), _points()
    reference = _by_autograd(decoder)
    with torch.no_grad():
        for quantity in QUANTITIES:
            expected = getattr(reference, quantity)(z)
            for fold in ("always", "never", "auto"):
                metric = FisherMetric(decoder, fold=fold)
                _assert_same(getattr(metric, quantity)(z), expected, 1e-11)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize(("activation", "likelihood"), KINDS)
def test_inner_products_need_two_directions_only(activation, likelihood, covariance):
    decoder, z = _decoder(activation, likelihood, covariance), _points()
    torch.manual_seed(8)
    u, v = torch.randn(2, *z.shape, dtype=z.dtype)
    expected = _by_autograd(decoder).inner_product(u, v, z)
    _assert_same(FisherMetric(decoder).inner_product(u, v, z), expected)
    _assert_same(FisherMetric(decoder).inner_product(u, v[0], z), _inner(decoder, u, v[0], z))


def _inner(decoder, u, v, z):
    return _by_autograd(decoder).inner_product(u, v, z)


@pytest.mark.parametrize(
    ("activation", "likelihood", "covariance"),
    [
        ("cubic", "complex", "diagonal"),
        ("split_gelu", "complex", "scalar"),
        ("split_gelu", "real", "constant"),
    ],
)
@pytest.mark.parametrize("threshold", [1, 99])
def test_metric_vector_products(monkeypatch, activation, likelihood, covariance, threshold):
    monkeypatch.setattr(fisher, "COVECTOR_FROM", threshold)
    decoder, z = _decoder(activation, likelihood, covariance), _points()
    metric = FisherMetric(decoder)
    u, v = torch.randn_like(z), torch.randn_like(z)
    w = metric.metric_vector_product(u, z)
    _assert_same((w.conj() * v).sum(-1).real, metric.inner_product(u, v, z))
    weights = list(decoder.parameters())
    loss = (w.conj() * v).sum().real
    ours = torch.autograd.grad(loss, weights, allow_unused=True)
    theirs = torch.autograd.grad(metric.inner_product(u, v, z).sum(), weights, allow_unused=True)
    for g, h in zip(ours, theirs, strict=True):
        assert (g is None) == (h is None)
        if g is not None:
            torch.testing.assert_close(g, h, rtol=1e-9, atol=1e-10)
    with pytest.raises(InputError, match="u: expected"):
        metric.metric_vector_product(u.real, z)


def test_the_curvature_of_one_set_of_jets():
    decoder, z = _decoder("tanh", d=2), _points(2, 2)
    for quantity in ("ricci_tensor", "christoffels", "kahler_defect"):
        expected = getattr(_by_autograd(decoder), quantity)(z)
        _assert_same(getattr(FisherMetric(decoder), quantity)(z), expected, 1e-10)


@pytest.mark.parametrize("fold", ["always", "never"])
@pytest.mark.parametrize(
    ("activation", "likelihood", "covariance"),
    [
        ("cubic", "complex", "constant"),
        ("split_tanh", "complex", "diagonal"),
        ("split_gelu", "real", "scalar"),
    ],
)
def test_gradients_go_through_reduced_heads(activation, likelihood, covariance, fold):
    decoder, z = _decoder(activation, likelihood, covariance), _points().requires_grad_()
    wanted = [z, *decoder.parameters()]

    def gradients(metric):
        loss = metric.log_volume(z).sum()
        return torch.autograd.grad(loss, wanted, allow_unused=True)

    expected = gradients(_by_autograd(decoder))
    got = gradients(FisherMetric(decoder, fold=fold, memory_budget=40_000))
    for g, e in zip(got, expected, strict=True):
        if g is None or e is None:  # what does not matter, such as the bias of the mean
            assert all(x is None or not x.any() for x in (g, e))
        else:
            _assert_same(g, e, 1e-9)


@pytest.mark.parametrize("activation", ["cubic", "split_tanh", "modulus_sigmoid"])
@pytest.mark.parametrize(("count", "h"), [(1500, 4), (60, 100), (200, 70)])
def test_gradients_of_large_and_small_products_meet(activation, count, h):
    """Values and tangents of a layer differ in size, and take different functions."""
    decoder, z = _decoder(activation, covariance="diagonal", d=2, D=9, h=h), _points(2, count)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.div_(h**0.5)
    weights = [p for p in decoder.parameters() if p.requires_grad]

    def gradients(metric):
        loss = metric.log_volume(z).mean()
        return torch.autograd.grad(loss, weights, allow_unused=True)

    for got, expected in zip(
        gradients(FisherMetric(decoder)), gradients(_by_autograd(decoder)), strict=True
    ):
        if got is None or expected is None:
            assert all(x is None or not x.any() for x in (got, expected))
        else:
            _assert_same(got, expected, 1e-8)


@pytest.mark.parametrize("activation", ["cubic", "split_tanh"])
def test_an_empty_batch_has_empty_gradients(activation):
    decoder, z = _decoder(activation), _points(count=0)
    metric = FisherMetric(decoder)
    metric.log_volume(z).sum().backward()
    assert metric.metric_matrix(z).shape == (0, 3, 3)
    assert not decoder.layers[0].weight_pairs.grad.any()


def test_only_the_constant_variance_is_trained_beside_a_singular_head():
    decoder, z = _decoder(h=6), _points()
    decoder.requires_grad_(False)
    decoder.mean_head.weight_pairs[:, 3] = 0
    decoder.constant_log_variance.requires_grad_()
    loss = FisherMetric(decoder, fold="always").log_volume(z).sum()
    (got,) = torch.autograd.grad(loss, decoder.constant_log_variance)
    loss = _by_autograd(decoder).log_volume(z).sum()
    (expected,) = torch.autograd.grad(loss, decoder.constant_log_variance)
    _assert_same(got, expected, 1e-10)


@pytest.mark.parametrize("activation", ["cubic", "split_tanh"])
def test_batched_backward_passes_and_vmap_beside_trained_weights(activation):
    decoder = _decoder(activation, covariance="diagonal", D=70, h=70)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.div_(70**0.5)
    z = _points(count=150).requires_grad_()
    metric = FisherMetric(decoder)
    g = metric.metric_matrix(z)
    by = torch.randn(2, *g.shape, dtype=g.dtype)
    (got,) = torch.autograd.grad(g, z, by, is_grads_batched=True, retain_graph=True)
    for each, cotangent in zip(got, by, strict=True):
        (expected,) = torch.autograd.grad(g, z, cotangent, retain_graph=True)
        _assert_same(each, expected, 1e-10)
    mapped = torch.vmap(FisherMetric(decoder, validate_args=False).log_volume)(z.detach())
    _assert_same(mapped, metric.log_volume(z.detach()), 1e-10)


@pytest.mark.parametrize("activation", ["cubic", "split_tanh"])
def test_second_derivatives_by_weights_go_through_gram_matrices(activation):
    def norm_of_gradient(fold):
        decoder, z = _decoder(activation, covariance="diagonal"), _points(count=5)
        weights = [decoder.log_variance_head.weight_pairs, decoder.layers[2].weight_pairs]
        metric = FisherMetric(decoder, fold=fold)
        first = torch.autograd.grad(metric.log_volume(z).sum(), weights, create_graph=True)
        return torch.autograd.grad(sum((g**2).sum() for g in first), weights)

    for got, expected in zip(norm_of_gradient("always"), norm_of_gradient("never"), strict=True):
        _assert_same(got, expected, 1e-9)


@pytest.mark.parametrize(("activation", "likelihood"), KINDS)
def test_functional_hessians_are_those_of_autograd(activation, likelihood):
    decoder = _decoder(activation, likelihood, "diagonal", d=2).requires_grad_(False)
    metric, z = FisherMetric(decoder, validate_args=False), _points(2, 1)[0]

    def volume(x):
        return metric.log_volume(torch.complex(*x.chunk(2)))

    x = torch.cat([z.real, z.imag])
    expected = torch.autograd.functional.hessian(volume, x)
    _assert_same(torch.func.hessian(volume)(x), expected, 1e-9)
    _assert_same(torch.func.jacrev(torch.func.jacrev(volume))(x), expected, 1e-9)


def test_functional_gradients_by_weights_are_right():
    decoder, z = _decoder(D=40), _points(count=60)
    weights = {name: p.detach() for name, p in decoder.named_parameters()}
    metric = FisherMetric(decoder, validate_args=False)

    def loss(weights):
        with torch.nn.utils.stateless._reparametrize_module(decoder, weights):
            return metric.log_det_hermitian(z).sum()

    got = torch.func.grad(loss)(weights)["mean_head.weight_pairs"]
    expected = metric.log_det_hermitian(z).sum()
    (expected,) = torch.autograd.grad(expected, decoder.mean_head.weight_pairs)
    _assert_same(got, expected, 1e-10)


def test_reductions_keep_gram_products():
    torch.manual_seed(0)
    w, v = torch.randn(9, 3, dtype=torch.complex128), torch.randn(3, 5, dtype=torch.complex128)
    r, c = reduced(w), reduced_real(w)
    assert r.shape == (3, 3)
    assert c.shape == (6, 3)
    _assert_same(r.mH @ r, w.mH @ w)
    real, expected = (c @ v).real, (w @ v).real
    _assert_same(real.mT @ real, expected.mT @ expected)


def test_reduced_heads_follow_the_weights():
    decoder, z = _decoder(), _points()
    metric = FisherMetric(decoder, fold="always")
    with torch.no_grad():
        before = metric.metric_matrix(z)
        assert torch.equal(metric.metric_matrix(z), before)
        decoder.mean_head.weight_pairs.mul_(2)
        _assert_same(metric.metric_matrix(z), 4 * before)
        decoder.constant_log_variance.add_(math.log(4))
        _assert_same(metric.metric_matrix(z), before)
        state = {k: v.clone() for k, v in decoder.state_dict().items()}
        state["mean_head.weight_pairs"] *= 3
        decoder.load_state_dict(state)
        _assert_same(metric.metric_matrix(z), 9 * before)
        decoder.mean_head.weight_pairs.data = decoder.mean_head.weight_pairs.data / 3
        _assert_same(metric.metric_matrix(z), before)
        decoder.mean_head.weight_pairs.data.mul_(2)
        _assert_same(metric.metric_matrix(z), 4 * before)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_steps_of_fused_optimizers_are_seen(optimizer):
    """They write weights without a new version of them."""
    decoder, z = _decoder(covariance="diagonal"), _points()
    metric, step = FisherMetric(decoder), optimizer(decoder.parameters(), lr=0.05, fused=True)
    for _ in range(3):
        step.zero_grad()
        metric.log_volume(z).sum().backward()
        step.step()
        with torch.no_grad():
            _assert_same(metric.metric_matrix(z), _by_autograd(decoder).metric_matrix(z))


def test_copies_keep_nothing_and_replaced_layers_are_forgotten():
    decoder, z = _decoder(), _points()
    metric = FisherMetric(decoder, fold="always")
    with torch.no_grad():
        for _ in range(20):
            metric.metric_matrix(z)
            assert metric._heads._kept
            metric = copy.deepcopy(metric)
            assert not metric._heads._kept
            metric.decoder.mean_head = _decoder().mean_head
            _assert_same(metric.metric_matrix(z), _by_autograd(metric.decoder).metric_matrix(z))
        count = len(metric._heads._kept)
        metric.decoder.layers[2] = _decoder("tanh").layers[2]
        _assert_same(metric.metric_matrix(z), _by_autograd(metric.decoder).metric_matrix(z))
        assert len(metric._heads._kept) == count


def test_a_conjugated_weight_is_another_one():
    decoder, z = _decoder(), _points()
    layer = torch.nn.Linear(6, 6, dtype=torch.complex128)
    decoder.layers[2] = layer
    metric = FisherMetric(decoder)
    with torch.no_grad():
        metric.metric_matrix(z)
        layer.weight = torch.nn.Parameter(layer.weight.detach().conj())
        _assert_same(metric.metric_matrix(z), _by_autograd(decoder).metric_matrix(z))


def test_threads_do_not_share_what_is_recorded():
    decoder, z = _decoder("split_tanh", covariance="diagonal"), _points(count=40)
    metric, failures = FisherMetric(decoder, memory_budget=20_000), []

    def train():
        try:
            for _ in range(4):
                metric.log_volume(z).sum().backward()
        except RuntimeError as error:
            failures.append(error)

    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("covariance", ["constant", "diagonal"])
def test_matrices_kept_for_products_follow_the_weights(covariance):
    decoder = _decoder("split_tanh", covariance=covariance, D=90, h=64).float()
    z = _points(count=64).to(torch.complex64)
    metric = FisherMetric(decoder)
    with torch.no_grad():
        for weight in (p for n, p in decoder.named_parameters() if n.endswith("weight_pairs")):
            metric.metric_matrix(z)
            weight.mul_(1.1)
            fresh = FisherMetric(decoder).metric_matrix(z)
            torch.testing.assert_close(metric.metric_matrix(z), fresh, rtol=1e-5, atol=1e-5)


def _tensors(made):
    """All tensors in what is kept of weights."""
    if isinstance(made, torch.Tensor):
        return [made]
    parts = vars(made).values() if isinstance(made, Weight) else made or ()
    return [tensor for part in parts for tensor in _tensors(part)]


@pytest.mark.parametrize("covariance", ["constant", "diagonal"])
def test_nothing_is_kept_of_a_call_under_vmap(covariance):
    decoder, z = _decoder(covariance=covariance), _points()
    metric = FisherMetric(decoder, fold="always")
    with torch.no_grad():
        mapped = torch.vmap(metric.metric_matrix)(z)
        _assert_same(metric.metric_matrix(z), mapped)
        kept = [tensor for _, made in metric._heads._kept.values() for tensor in _tensors(made)]
        assert kept
        assert not any(map(torch._C._functorch.is_functorch_wrapped_tensor, kept))


@pytest.mark.parametrize("covariance", ["constant", "diagonal"])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_forward_mode_is_seen_by_every_product(covariance, precision):
    decoder = _decoder("split_tanh", covariance=covariance, D=90, h=64).to(precision)
    z = _points(count=64).to(precision.to_complex())
    metric, v = FisherMetric(decoder, validate_args=False), torch.randn_like(z)
    with torch.no_grad():
        metric.metric_matrix(z)  # what it keeps must not hide tangents
    reference = FisherMetric(decoder.double(), validate_args=False)
    wide, step = z.to(torch.complex128), 1e-5 * v.to(torch.complex128)
    with torch.no_grad():
        slope = reference.metric_matrix(wide + step) - reference.metric_matrix(wide - step)
    decoder.to(precision)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(z, v)
        tangent = forward_ad.unpack_dual(metric.metric_matrix(dual)).tangent
    _, by_func = torch.func.jvp(metric.metric_matrix, (z,), (v,))
    torch.testing.assert_close(tangent, by_func)
    error = (tangent - slope / 2e-5).abs().max() / slope.abs().max() * 2e-5
    assert error < (1e-7 if precision is torch.float64 else 1e-3)


def test_metric_vector_products_without_gradients():
    decoder, z = _decoder("split_tanh", d=fisher.COVECTOR_FROM), _points(d=fisher.COVECTOR_FROM)
    metric, u = FisherMetric(decoder), torch.randn_like(z)
    expected = metric.metric_vector_product(u, z)
    for without in (torch.inference_mode, torch.no_grad):
        with without():
            _assert_same(metric.metric_vector_product(u, z), expected)
    with torch.no_grad():
        _assert_same(FisherMetric(decoder).metric_vector_product(u, z), expected)


@pytest.mark.parametrize("activation", ["cubic", "split_tanh"])
def test_what_inference_mode_kept_is_not_given_to_autograd(activation):
    decoder, z = _decoder(activation).requires_grad_(False), _points()
    metric = FisherMetric(decoder, fold="always")
    with torch.inference_mode():
        metric.log_volume(z)
    z.requires_grad_()
    (got,) = torch.autograd.grad(metric.log_volume(z).sum(), z)
    (expected,) = torch.autograd.grad(_by_autograd(decoder).log_volume(z).sum(), z)
    _assert_same(got, expected, 1e-9)


def test_reduced_heads_are_computed_once(monkeypatch):
    decoder, z = _decoder(), _points(count=40)
    triangles, grams = [], []
    qr, gram = torch.linalg.qr, Weight.gram.func
    monkeypatch.setattr(torch.linalg, "qr", lambda w: triangles.append(w.shape) or qr(w))
    monkeypatch.setattr(Weight.gram, "func", lambda weight: grams.append(1) or gram(weight))
    metric = FisherMetric(decoder, fold="always", memory_budget=20_000)
    metric.log_volume(z)  # recorded, and in many chunks
    assert (len(triangles), len(grams)) == (0, 1)
    with torch.no_grad():
        metric.log_volume(z)
        metric.log_volume(z)
    assert (len(triangles), len(grams)) == (1, 1)


def test_the_plan_is_visible_and_can_be_overridden():
    wide, narrow = _decoder(D=40, h=6), _decoder(D=6, h=6)
    with torch.no_grad():
        assert FisherMetric(wide).plan().mean == "reduced"
        assert FisherMetric(wide).plan().mean_rows == 6
        assert FisherMetric(narrow).plan().mean == "full"
        assert FisherMetric(narrow, fold="always").plan().mean == "reduced"
        assert FisherMetric(wide, fold="never").plan().mean == "full"
        assert FisherMetric(wide, fold_ratio=10).plan().mean == "full"
        diagonal = FisherMetric(_decoder(covariance="diagonal", D=10, h=6))
        assert diagonal.plan().mean == "full"
        assert diagonal.plan(complementary=True).covariance == "full"
        assert diagonal.plan(complementary=False).covariance == "reduced"
        assert "layers.0: closed form" in repr(diagonal)
        assert "mean full" in repr(diagonal)
    # while weights are trained Gram matrices are made anew, and pay for many points only
    assert FisherMetric(wide).plan(points=1).mean == "full"
    assert FisherMetric(wide).plan(points=1000).mean == "gram"
    unknown = _by_autograd(wide)
    assert unknown.plan().route == "autograd"
    assert "autograd" in repr(unknown)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"fold": "maybe"}, "fold"), ({"fold_ratio": 0}, "fold_ratio"), ({"memory_budget": 0}, "mem")],
)
def test_wrong_options_are_refused(options, name):
    with pytest.raises(InputError, match=name):
        FisherMetric(_decoder(), **options)


@pytest.mark.parametrize("covariance", ["constant", "diagonal"])
def test_chunks_change_nothing(covariance):
    decoder, z = _decoder("split_tanh", covariance=covariance), _points(count=12).reshape(3, 4, 3)
    small, large = FisherMetric(decoder, memory_budget=1), FisherMetric(decoder)
    u = torch.randn_like(z)
    for quantity in [*QUANTITIES, "ricci_tensor", "scalar_curvature", "kahler_defect"]:
        whole = getattr(large, quantity)(z)
        _assert_same(getattr(small, quantity)(z), whole, 1e-13)
    _assert_same(small.inner_product(u, u[0, 0], z), large.inner_product(u, u[0, 0], z), 1e-14)
    hsc = small.holomorphic_sectional_curvature(z, u[0, 0])
    _assert_same(hsc, large.holomorphic_sectional_curvature(z, u[0, 0]), 1e-12)
    assert small.metric_matrix(z[:0]).shape == (0, 4, 3, 3)


def test_other_metrics_take_a_budget_too():
    torch.manual_seed(0)
    centres = torch.randn(5, 2, dtype=torch.complex128)
    precisions = torch.eye(2, dtype=torch.complex128).expand(5, 2, 2).clone()
    weights = torch.full((5,), 0.2, dtype=torch.float64)
    z = _points(2, 6)
    whole = MixtureMetric(weights, centres, precisions).ricci_tensor(z)
    small = MixtureMetric(weights, centres, precisions, memory_budget=1)
    assert small.to(dtype=torch.complex128).memory_budget == 1
    _assert_same(small.ricci_tensor(z), whole, 1e-14)


def test_parameters_with_a_batch_of_their_own_are_not_cut():
    z = _points(2, 6)
    centre, precision = (
        torch.zeros_like(z),
        torch.eye(2, dtype=z.dtype) * torch.arange(1, 7)[:, None, None],
    )
    parameters = {"centre": centre, "precision": precision.to(z.dtype)}
    metric = PotentialMetric("quadratic_form", memory_budget=1, **parameters)
    _assert_same(metric.metric_matrix(z), precision.to(z.dtype))
    shared = PotentialMetric(
        "quadratic_form", memory_budget=1, centre=centre[0], precision=precision[1].to(z.dtype)
    )
    _assert_same(shared.metric_matrix(z), precision[1].to(z.dtype).expand(6, 2, 2))


def _peak_bytes(function):
    """The most that was allocated at one time, beyond what there was before."""
    gc.collect()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        function()
    level = peak = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    return peak


@pytest.mark.parametrize(("quantity", "count"), [("log_volume", 4096), ("ricci_tensor", 64)])
@pytest.mark.parametrize("covariance", ["constant", "diagonal"])
def test_the_budget_is_kept(quantity, count, covariance):
    decoder, z = _decoder("split_tanh", covariance=covariance, d=4, D=64, h=32), _points(4, count)
    budget = 8 * 2**20
    metric = FisherMetric(decoder, memory_budget=budget, fold="never")
    with torch.no_grad():
        answer = getattr(metric, quantity)(z)
        peak = _peak_bytes(lambda: getattr(metric, quantity)(z))
    assert peak > budget / 100
    assert peak <= budget + 3 * answer.nbytes
