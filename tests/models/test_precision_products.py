"""16-bit products on a CPU that has no units for them: in float32, rounded once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lavis_msmedcap.models import precision
from lavis_msmedcap.models.precision import Float32Products, frozen_products, own_precision

CPU = torch.device("cpu")
NARROW = [torch.bfloat16, torch.float16]


def numbers(*shape: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype)


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda a, b: F.linear(a, b.transpose(-1, -2)[0], bias=b[0, 0]),
    "matmul": torch.matmul,
    "operator": lambda a, b: a @ b,
    "method": lambda a, b: a.matmul(b),
    "bmm": torch.bmm,
    "einsum": lambda a, b: torch.einsum("bij,bjk->bik", a, b),
    "baddbmm": lambda a, b: torch.baddbmm(b[:, :1], a, b, beta=2.0),
    "addmm": lambda a, b: torch.addmm(b[0, 0], a[0], b[0]),
    "conv2d": lambda a, b: F.conv2d(a[:, None], b[:1, None, :2, :2], stride=2),
}


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_equals_the_rounded_float32_product(name: str, dtype: torch.dtype) -> None:
    a, b = numbers(2, 40, 64, dtype=dtype), numbers(2, 64, 32, dtype=dtype)
    expected = PRODUCTS[name](a.float(), b.float()).to(dtype)
    with Float32Products():
        found = PRODUCTS[name](a, b)
    assert found.dtype == dtype
    assert torch.equal(found, expected)


def test_what_is_wide_or_no_product_is_left_alone() -> None:
    a = numbers(3, 3, dtype=torch.float32)
    with Float32Products():
        assert torch.equal(a @ a, torch.matmul(a, a))
        assert (a.bfloat16() + 1).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", NARROW)
def test_only_where_it_helps(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen() -> bool:
        return isinstance(frozen_products(dtype, CPU), Float32Products)

    monkeypatch.setattr(precision, "has_units", lambda _: False)
    with torch.no_grad():
        assert chosen()
        assert not isinstance(frozen_products(dtype, torch.device("cuda")), Float32Products)
    assert not chosen()  # every widened weight would be kept for the backward pass
    monkeypatch.setattr(precision, "has_units", lambda _: True)
    with torch.no_grad():
        assert not chosen()


@torch.no_grad()
def test_the_llms_context_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_units", lambda _: False)
    layer = nn.Linear(64, 64).bfloat16()
    x = numbers(1, 64, dtype=torch.bfloat16)
    expected = F.linear(x.float(), layer.weight.float(), layer.bias.float()).bfloat16()
    with own_precision(x):
        assert torch.equal(layer(x), expected)
