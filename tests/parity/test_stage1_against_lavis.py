"""CLIP-only stage 1 equals LAVIS' ``Blip2Qformer``: three losses and all gradients.

Both run on copied weights with dropout off and the same hard negatives (both draw the most likely
one: LAVIS' ``torch.multinomial`` and our ``pick`` are replaced by ``argmax``, because the same
random state means different choices to them). LAVIS needs a process group for its rank and its
gather; the two calls are given their single-process values. Tolerances cover the order of float32
sums only: the same operations are batched differently (one einsum instead of B matmuls).
"""

from __future__ import annotations

import pytest
import torch
from lavis.models.blip2_models import blip2_qformer as lavis_qformer
from lavis_stage1 import BATCH, PAD, START, FixedTokenizer, lavis_model, make_branch, make_texts

from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds
from lavis_msmedcap.models.objectives import itm

pytestmark = pytest.mark.parity


@pytest.fixture
def branch() -> QFormerBranch:
    return make_branch()


@pytest.fixture
def texts() -> tuple[torch.Tensor, torch.Tensor]:
    return make_texts()


def test_losses_and_gradients_equal_lavis(
    branch: QFormerBranch,
    texts: tuple[torch.Tensor, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "multinomial", lambda weights, _: weights.argmax(-1, keepdim=True))
    monkeypatch.setattr(itm, "pick", lambda weights, _: weights.argmax(-1))
    monkeypatch.setattr(lavis_qformer.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(lavis_qformer, "all_gather_with_grad", lambda tensor: tensor)
    image = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    ids, atts = texts

    reference = lavis_model(branch, FixedTokenizer(ids, atts))
    theirs = reference({"image": image, "text_input": [""] * BATCH})
    theirs.loss.backward()
    expected = {n: p.grad.clone() for n, p in branch.named_parameters() if p.grad is not None}
    branch.zero_grad(set_to_none=True)

    result = branch.stage1_losses(branch.encode(image, torch.empty(0)), ids, atts, PAD, START)
    sum(result.losses.values()).backward()
    ours = {n: p.grad for n, p in branch.named_parameters() if p.grad is not None}

    torch.testing.assert_close(result.losses["itc"], theirs.loss_itc, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(result.losses["itm"], theirs.loss_itm, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(result.losses["lm"], theirs.loss_lm, atol=1e-6, rtol=1e-6)
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, atol=2e-6, rtol=1e-4, msg=name)
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-2


def test_per_sample_losses_average_to_the_loss(
    branch: QFormerBranch, texts: tuple[torch.Tensor, torch.Tensor]
) -> None:
    embeds = ImageEmbeds(torch.randn(BATCH, 17, 24), torch.ones(BATCH, 17, dtype=torch.long))
    result = branch.stage1_losses(embeds, *texts, PAD, START)
    for name in ("itc", "itm"):
        torch.testing.assert_close(result.per_sample[name].mean(), result.losses[name].detach())
    tokens = (texts[1][:, 1:]).sum(dim=1)
    mean = (result.per_sample["lm"] * tokens).sum() / tokens.sum()
    torch.testing.assert_close(mean, result.losses["lm"].detach())
