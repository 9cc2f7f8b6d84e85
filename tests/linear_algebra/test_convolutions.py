"""Convolutions by products: torch's numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kahler_verify.linear_algebra import convolutions
from kahler_verify.linear_algebra.convolutions import by_products, convolution

DOUBLE = torch.float64


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def close(a: Tensor, b: Tensor, bound: float = 1e-13) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() <= bound * b.abs().max()


GEOMETRIES: list[tuple[tuple[int, int], dict[str, Any]]] = [
    ((4, 4), {"stride": 2, "padding": 1}),
    ((3, 3), {"stride": 1, "padding": 1}),
    ((3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((5, 2), {"stride": (3, 2), "padding": (2, 0), "output_padding": (2, 1)}),
    ((1, 1), {"stride": 1}),
    ((2, 3), {"stride": (4, 3), "output_padding": (3, 0)}),  # images with gaps
]


@pytest.mark.parametrize(("kernel", "named"), GEOMETRIES)
@pytest.mark.parametrize("outputs", [1, 3])
def test_products_are_the_transposed_convolution(
    kernel: tuple[int, int], named: dict[str, Any], outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolutions, "_AT_ONCE", 2000)  # of several chunks
    x, weight = draw(9, 5, 6, 4), draw(5, outputs, *kernel, seed=1)
    expected = functional.conv_transpose2d(x, weight, None, **named)
    close(convolution(functional.conv_transpose2d, x, weight, **named), expected)
    pairs = (convolutions._pair(named.get(n, v)) for n, v in
             (("stride", 1), ("padding", 0), ("output_padding", 0)))  # fmt: skip
    close(by_products(x, weight, *pairs), expected)


@pytest.mark.parametrize("padding", [0, 1, (2, 1)])
@pytest.mark.parametrize("outputs", [1, 3])
def test_products_are_the_convolution_of_few_outputs(
    padding: Any, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = draw(8, 5, 6, 4), draw(outputs, 5, 3, 3, seed=1)
    expected = functional.conv2d(x, weight, None, 1, padding)
    close(convolution(functional.conv2d, x, weight, padding=padding), expected)
    monkeypatch.setattr(convolutions, "by_products", None)
    with pytest.raises(TypeError, match="not callable"):
        convolution(functional.conv2d, x, weight, 1, padding)


@pytest.mark.parametrize(
    "named",
    [{"stride": 2}, {"padding": 3}, {"padding": "same"}, {"dilation": 2}, {"groups": 2}],
)
def test_other_convolutions_go_the_plain_way(named: dict[str, Any]) -> None:
    groups = named.get("groups", 1)
    x, weight = draw(8, 4, 6, 5), draw(2, 4 // groups, 3, 3, seed=1)
    expected = functional.conv2d(x, weight, None, **named)
    assert torch.equal(convolution(functional.conv2d, x, weight, **named), expected)


def test_products_have_the_same_gradients() -> None:
    x, weight = draw(8, 4, 5, 5).requires_grad_(), draw(4, 2, 4, 4, seed=1).requires_grad_()
    found = convolution(functional.conv_transpose2d, x, weight, 2, 1)
    expected = functional.conv_transpose2d(x, weight, None, 2, 1)
    by = draw(*expected.shape, seed=2)
    for a, b in zip(
        torch.autograd.grad((found * by).sum(), (x, weight)),
        torch.autograd.grad((expected * by).sum(), (x, weight)),
        strict=True,
    ):
        close(a, b)


@pytest.mark.parametrize(
    ("shape", "named"),
    [((4, 1, 3, 3), {"groups": 2}), ((4, 2, 3, 3), {"dilation": 2}), ((4, 9, 3, 3), {})],
)
def test_others_go_the_plain_way(shape: tuple[int, ...], named: dict[str, Any]) -> None:
    x, weight = draw(8, 4, 5, 5), draw(*shape, seed=1)
    expected = functional.conv_transpose2d(x, weight, None, **named)
    found = convolution(functional.conv_transpose2d, x, weight, **named)
    assert torch.equal(found, expected)


def test_where_onednn_is_switched_off_torch_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = draw(8, 4, 5, 5), draw(4, 1, 4, 4, seed=1)
    monkeypatch.setattr(convolutions, "by_products", None)
    with torch.backends.mkldnn.flags(enabled=False):
        convolution(functional.conv_transpose2d, x, weight)
    with pytest.raises(TypeError, match="not callable"):
        convolution(functional.conv_transpose2d, x, weight)


def test_transforms_go_the_plain_way() -> None:
    x, weight = draw(8, 4, 5, 5), draw(4, 1, 4, 4, seed=1)

    def f(x: Tensor) -> Tensor:
        return convolution(functional.conv_transpose2d, x, weight, 2, 1)

    out, slope = torch.func.jvp(f, (x,), (x,))
    close(slope, out)
    assert torch.equal(
        torch.func.vmap(f)(x[None])[0], functional.conv_transpose2d(x, weight, None, 2, 1)
    )


def test_many_images_of_strided_ones_have_channels_last() -> None:
    x, weight = draw(64, 6, 4, 5, dtype=torch.float32), draw(6, 8, 4, 4, dtype=torch.float32)
    named: dict[str, Any] = {"stride": 2, "padding": 1}
    found = convolution(functional.conv_transpose2d, x, weight, **named)
    close(found, functional.conv_transpose2d(x, weight, None, **named), 1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    for some, stride in ((x[:63], 2), (x, 1), (x[:, :, :1, :1], 2)):
        out = convolution(functional.conv_transpose2d, some, weight, stride, 1)
        assert torch.equal(out, functional.conv_transpose2d(some, weight, None, stride, 1))
