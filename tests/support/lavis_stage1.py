"""A CLIP-only stage-1 branch and LAVIS' ``Blip2Qformer`` on the same weights."""

from __future__ import annotations

import torch
from lavis.models.blip2_models import blip2_qformer as lavis_qformer
from torch import nn

from lavis_msmedcap.models.branch import QFormerBranch, QFormerSize
from lavis_msmedcap.models.encoders.eva_clip import EvaClipEncoder
from lavis_msmedcap.models.encoders.freeze import freeze

VOCAB, PAD, START = 60, 0, 59
BATCH, LENGTH = 5, 9
TEXT_MAX = 9


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


def make_branch() -> QFormerBranch:
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


def make_texts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, START, (BATCH, LENGTH), generator=generator)
    ids[:, 0] = 2
    atts = torch.ones_like(ids)
    for row, length in enumerate([9, 4, 7, 5, 9]):
        atts[row, length:] = 0
        ids[row, length:] = PAD
    return ids, atts


def lavis_model(
    branch: QFormerBranch,
    tokenizer: object,
    model_class: type[lavis_qformer.Blip2Qformer] = lavis_qformer.Blip2Qformer,
) -> nn.Module:
    model = model_class.__new__(model_class)
    nn.Module.__init__(model)
    model.tokenizer = tokenizer
    model.visual_encoder, model.ln_vision = branch.encoder.vit, branch.encoder.ln
    model.Qformer, model.query_tokens = branch.qformer, branch.query_tokens
    model.vision_proj, model.text_proj = branch.vision_proj, branch.text_proj
    model.itm_head, model.temp = branch.itm_head, branch.temp
    model.max_txt_len = TEXT_MAX
    return model
