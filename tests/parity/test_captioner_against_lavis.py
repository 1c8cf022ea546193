"""CLIP-only captioner equals LAVIS' ``Blip2OPT``: loss, greedy tokens and beam-search tokens.

Both run on the same modules, so only the assembly is under test. LAVIS' dataset prepends the prompt
to the caption; its model masks the prompt's tokens. Tolerance: order of float32 sums.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from lavis.models.blip2_models.blip2_opt import Blip2OPT
from packaging.version import Version
from tiny_models import TEXTS
from torch import nn

from lavis_msmedcap.imaging.views import normalize_clip, unpack_views
from lavis_msmedcap.models.msmedcap import MSMedCap

PROMPT = "Question: Describe the image. Answer:"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(
        Version(transformers.__version__) >= Version("4.27"),
        reason="LAVIS 1.0.2 generates only with transformers < 4.27",
    ),
]


class SpyTokenizer:
    """LAVIS' tokenizer, keeping the tokens it is asked to decode."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.decoded: list[list[int]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tokenizer(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["tokenizer"], name)

    def batch_decode(self, tokens: Any, **kwargs: Any) -> Any:
        return self.tokenizer.batch_decode(tokens, **kwargs)


@pytest.fixture
def ours(stage2_settings: dict[str, Any]) -> MSMedCap:
    stage2_settings["branches"]["sam"] = None
    torch.manual_seed(5)
    model = MSMedCap.from_config(stage2_settings).eval()
    with torch.no_grad():  # BERT's initial spread of 0.02 would leave the image without influence
        for module in (model.Qformer, model.visual_encoder, model.opt_proj):
            for parameter in module.parameters():
                parameter.mul_(10 if parameter.ndim > 1 else 1)
    return model


@pytest.fixture
def theirs(ours: MSMedCap) -> Blip2OPT:
    model = Blip2OPT.__new__(Blip2OPT)
    nn.Module.__init__(model)
    model.visual_encoder, model.ln_vision = ours.visual_encoder, ours.ln_vision
    model.Qformer, model.query_tokens = ours.Qformer, ours.query_tokens
    model.opt_proj, model.opt_model = ours.opt_proj, ours.opt_model
    model.opt_tokenizer, model.eos_token_id = SpyTokenizer(ours.opt_tokenizer), ours.eos_token_id
    model.prompt, model.max_txt_len = PROMPT, 64
    model.prompt_length = ours.opt_tokenizer(PROMPT, return_tensors="pt").attention_mask.sum(1)
    return model.eval()


def test_loss_and_gradients(ours: MSMedCap, theirs: Blip2OPT, packed_images: torch.Tensor) -> None:
    view = normalize_clip(unpack_views(packed_images).clip)
    prompted = [f"{PROMPT} {text}" for text in TEXTS]
    expected = theirs({"image": view, "text_input": prompted})["loss"]
    expected.backward()
    gradient = ours.query_tokens.grad.clone()
    ours.zero_grad()
    loss = ours({"image": packed_images, "text_input": TEXTS})["loss"]
    loss.backward()
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    # the amplified weights amplify rounding too: compare with the largest entry
    largest = float(gradient.abs().max())
    assert largest > 1e-2
    torch.testing.assert_close(ours.query_tokens.grad, gradient, atol=1e-4 * largest, rtol=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_beams": 1},
        {"num_beams": 5},
        {"num_beams": 5, "length_penalty": -1.0, "min_length": 20},
        {"num_beams": 4, "repetition_penalty": 1.5, "num_captions": 3},
    ],
)
def test_generated_captions(
    ours: MSMedCap, theirs: Blip2OPT, packed_images: torch.Tensor, arguments: dict[str, Any]
) -> None:
    view = normalize_clip(unpack_views(packed_images).clip)
    expected = theirs.generate({"image": view}, max_length=16, **arguments)
    captions = ours.generate({"image": packed_images}, max_length=16, **arguments)
    assert captions == expected
    assert len(set(captions)) > 1


def test_blip2_normalised_image_gives_the_same_caption(
    ours: MSMedCap, packed_images: torch.Tensor
) -> None:
    view = normalize_clip(unpack_views(packed_images).clip)
    from_view = ours.generate({"image": view}, max_length=8)
    assert from_view == ours.generate({"image": packed_images}, max_length=8)
