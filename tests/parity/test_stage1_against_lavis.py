"""CLIP-only stage 1 equals LAVIS' ``Blip2Qformer``: three losses and all gradients.

Both run on copied weights with dropout off and the same hard negatives (both draw the most likely
one: ``torch.multinomial`` is replaced by ``argmax``, because LAVIS draws row by row and we draw all
rows at once). LAVIS needs a process group for its rank and its gather; the two calls are given
their single-process values. Tolerances cover the order of float32 sums only: the same operations
are batched differently (one einsum instead of B matmuls).
"""

from __future__ import annotations

import pytest
import torch
from lavis.models.blip2_models import blip2_qformer as lavis_qformer
from torch import nn

from lavis_msmedcap.models.branch import QFormerBranch, QFormerSize
from lavis_msmedcap.models.encoders.eva_clip import EvaClipEncoder
from lavis_msmedcap.models.encoders.freeze import freeze
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds

VOCAB, PAD, START = 60, 0, 59
BATCH, LENGTH = 5, 9
TEXT_MAX = 9

pytestmark = pytest.mark.parity


class FixedTokenizer:
    """Stands for LAVIS' tokenizer: returns prepared ids whatever the text."""

    pad_token_id = PAD
    bos_token_id = START

    def __init__(self, ids: torch.Tensor, atts: torch.Tensor) -> None:
        self.ids, self.atts = ids, atts

    def __call__(self, *_: object, **__: object) -> FixedTokenizer:
        return self

    def to(self, _: object) -> FixedTokenizer:
        return self

    @property
    def input_ids(self) -> torch.Tensor:
        return self.ids

    @property
    def attention_mask(self) -> torch.Tensor:
        return self.atts


@pytest.fixture
def branch() -> QFormerBranch:
    torch.manual_seed(0)
    encoder = EvaClipEncoder(image_size=32, patch_size=8, width=24, depth=2, num_heads=2)
    nn.init.normal_(encoder.ln.weight)
    size = QFormerSize(VOCAB, 32, 4, 4, 64, 2, 0.0)
    branch = QFormerBranch(freeze(encoder), size, num_query_token=6, embed_dim=16)
    with torch.no_grad():  # BERT's initial spread of 0.02 leaves every similarity alike
        for parameter in branch.qformer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        branch.query_tokens.mul_(20)
    return branch.eval()


@pytest.fixture
def texts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, START, (BATCH, LENGTH), generator=generator)
    ids[:, 0] = 2
    atts = torch.ones_like(ids)
    for row, length in enumerate([9, 4, 7, 5, 9]):
        atts[row, length:] = 0
        ids[row, length:] = PAD
    return ids, atts


def lavis_model(branch: QFormerBranch, tokenizer: FixedTokenizer) -> nn.Module:
    model = lavis_qformer.Blip2Qformer.__new__(lavis_qformer.Blip2Qformer)
    nn.Module.__init__(model)
    model.tokenizer = tokenizer
    model.visual_encoder, model.ln_vision = branch.encoder.vit, branch.encoder.ln
    model.Qformer, model.query_tokens = branch.qformer, branch.query_tokens
    model.vision_proj, model.text_proj = branch.vision_proj, branch.text_proj
    model.itm_head, model.temp = branch.itm_head, branch.temp
    model.max_txt_len = TEXT_MAX
    return model


def test_losses_and_gradients_equal_lavis(
    branch: QFormerBranch,
    texts: tuple[torch.Tensor, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def most_likely(weights: torch.Tensor, _: int) -> torch.Tensor:
        return weights.argmax(dim=-1, keepdim=True)

    monkeypatch.setattr(torch, "multinomial", most_likely)
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
