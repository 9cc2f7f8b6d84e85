"""What the installed torch differentiates is asked, not assumed."""

import pytest
import torch
from torch.func import jvp, vmap

from kahler_verify.jets.support import FUNCTIONS, support


class NoForward(torch.autograd.Function):
    """Has a backward pass alone."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()


@pytest.fixture(scope="module")
def shipped():
    return {each.name: each for each in support()}


def test_functions_without_forward_mode_are_found(shipped):
    own = {"own": NoForward.apply, "sine": torch.sin, "erfcx": torch.special.erfcx}
    found = {each.name: each for each in support(own)}
    assert not found["own"].forward
    assert not found["own"].complete
    assert found["sine"].complete
    assert found["sine"].first_by == found["sine"].second_by == "rule"
    assert found["erfcx"].first_by == "autograd"


def test_what_is_said_of_forward_mode_is_so(shipped):
    x = torch.rand(2, 4, 4, 4, dtype=torch.float64)
    for name, function in FUNCTIONS.items():
        try:
            jvp(function, (x,), (x,))
            forward = True
        except RuntimeError:
            forward = False
        assert shipped[name].forward == forward, name


def test_functions_without_a_batching_rule_are_found():
    @torch.library.custom_op("kahler_verify_tests::tripled", mutates_args=())
    def tripled(x: torch.Tensor) -> torch.Tensor:
        return 3 * x

    def function(x):
        return x.sin() + vmap(lambda t: tripled(t))(x).detach()

    assert support({"sin": torch.sin})[0].batched
    assert not support({"tripled": function})[0].batched


def test_layers_of_decoders_need_nothing_of_torchs(shipped):
    for name in (
        "conv2d",
        "conv_transpose2d",
        "group_norm",
        "layer_norm",
        "scaled_dot_product_attention",
        "interpolate, nearest",
        "pixel_shuffle",
        "grid_sample",
        "glu",
        "silu",
        "mish",
    ):
        assert shipped[name].first_by == "rule", name
        assert shipped[name].second_by == "rule", name


def test_the_settings_of_torch_stay_what_they_were(shipped):
    functorch = torch._C._functorch
    assert functorch._is_vmap_fallback_enabled()
    support({"cdist": FUNCTIONS["cdist"]})
    assert functorch._is_vmap_fallback_enabled()
