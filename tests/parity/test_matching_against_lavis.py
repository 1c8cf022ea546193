"""CLIP-only features, matching and retrieval equal LAVIS' on the same weights.

The peers are ``Blip2Qformer.extract_features``, ``Blip2ITM`` and LAVIS' ``compute_sim_matrix``. The
operations are batched differently, so the tolerance covers the order of float32 sums.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lavis.models.blip2_models.blip2 import compute_sim_matrix
from lavis.models.blip2_models.blip2_image_text_matching import Blip2ITM
from lavis_stage1 import BATCH, FixedTokenizer, lavis_model, make_branch, make_texts
from omegaconf import OmegaConf

from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.image_text_matching import MSMedCapITM

TEXTS = [""] * BATCH
CLOSE = {"atol": 1e-6, "rtol": 1e-5}

pytestmark = pytest.mark.parity


@pytest.fixture
def branch() -> QFormerBranch:
    return make_branch()


@pytest.fixture
def tokenizer() -> FixedTokenizer:
    return FixedTokenizer(*make_texts())


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def ours(branch: QFormerBranch, tokenizer: FixedTokenizer) -> MSMedCapITM:
    return MSMedCapITM({"clip": branch}, {"clip": ["general"]}, tokenizer).eval()


@pytest.mark.parametrize("mode", ["image", "text", "multimodal"])
@pytest.mark.parametrize("name", [None, "clip", "fused"])
def test_features(
    ours: MSMedCapITM,
    branch: QFormerBranch,
    tokenizer: FixedTokenizer,
    image: torch.Tensor,
    mode: str,
    name: str | None,
) -> None:
    samples = {"image": image, "text_input": TEXTS}
    expected = lavis_model(branch, tokenizer).eval().extract_features(samples, mode=mode)
    features = ours.extract_features(samples, mode=mode, branch=name)
    assert features.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(features[key], value, **CLOSE)
        assert value.std() > 1e-2


@pytest.mark.parametrize("head", ["itm", "itc"])
def test_matching(
    ours: MSMedCapITM,
    branch: QFormerBranch,
    tokenizer: FixedTokenizer,
    image: torch.Tensor,
    head: str,
) -> None:
    samples = {"image": image, "text_input": TEXTS}
    with torch.no_grad():
        expected = lavis_model(branch, tokenizer, Blip2ITM).eval()(samples, match_head=head)
    scores = ours(samples, match_head=head)
    assert scores.shape == (BATCH, 2 if head == "itm" else 1)
    torch.testing.assert_close(scores, expected, **CLOSE)
    assert expected.std() > 1e-2


@pytest.mark.parametrize("k_test", [2, BATCH])
@torch.no_grad()
def test_retrieval(
    ours: MSMedCapITM,
    branch: QFormerBranch,
    tokenizer: FixedTokenizer,
    image: torch.Tensor,
    k_test: int,
) -> None:
    class Loader(list[dict[str, Any]]):
        dataset = SimpleNamespace(text=TEXTS, image=["a.png"] * BATCH)

    loader = Loader([{"image": image[:3]}, {"image": image[3:]}])
    peer = lavis_model(branch, tokenizer).eval()
    expected = compute_sim_matrix(peer, loader, k_test=k_test)
    scores = ours.compute_sim_matrix(loader, OmegaConf.create({"k_test": k_test}))
    for own, theirs in zip(scores, expected):
        torch.testing.assert_close(torch.from_numpy(own), torch.from_numpy(theirs), **CLOSE)
        assert (theirs == -100).sum() == BATCH * (BATCH - k_test)
