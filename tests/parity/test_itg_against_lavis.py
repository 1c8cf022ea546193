"""Captions of a Q-Former alone equal those of LAVIS' ``Blip2Qformer.generate`` (CLIP-only)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from lavis_stage1 import START, lavis_model, make_branch
from packaging.version import Version

from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(
        Version(transformers.__version__) >= Version("4.27"),
        reason="LAVIS 1.0.2 generates only with transformers < 4.27",
    ),
]


class NumberTokenizer:
    """Makes strings of token ids, without the special ones."""

    pad_token_id, sep_token_id, bos_token_id = 0, 3, START

    def batch_decode(self, rows: Any, **_: object) -> list[str]:
        special = (self.pad_token_id, self.sep_token_id, self.bos_token_id)
        return [" ".join(str(int(i)) for i in row if int(i) not in special) for row in rows]


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_beams": 1, "min_length": 1},
        {"num_beams": 1},
        {"num_beams": 3, "min_length": 1},
        {"max_length": 12},
        {"num_beams": 5, "min_length": 4, "max_length": 8},
    ],
)
def test_captions(arguments: dict[str, Any]) -> None:
    branch, tokenizer = make_branch(), NumberTokenizer()
    torch.manual_seed(0)
    with torch.no_grad():  # larger weights: tokens differ from step to step and image to image
        for parameter in branch.qformer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        branch.qformer.cls.predictions.bias[tokenizer.sep_token_id] += 4  # some captions end
    image = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    ours = Blip2DualQformer({"clip": branch}, {"clip": ["general"]}, tokenizer).eval()
    captions = ours.generate({"image": image}, **arguments)
    expected = lavis_model(branch, tokenizer).eval().generate({"image": image}, **arguments)
    assert captions == expected
    assert len(set(captions)) > 1
