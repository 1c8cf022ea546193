from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.branch import QFormerBranch, QFormerSize, build_qformer
from lavis_msmedcap.models.checkpoint_names import ALIASES
from lavis_msmedcap.models.encoders.build import build_encoder
from lavis_msmedcap.models.encoders.eva_clip import EvaClipEncoder
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds
from lavis_msmedcap.models.qformer_init import initialize_branch

SIZE = QFormerSize(60, 32, 4, 4, 64, 2, 0.0)
EVA = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}


def make_branch(embed_dim: int | None = 16, llm_width: int | None = None) -> QFormerBranch:
    encoder = build_encoder("eva_clip", EVA, None, "random")
    return QFormerBranch(encoder, SIZE, 6, embed_dim, llm_width)


def images(batch: int) -> ImageEmbeds:
    return ImageEmbeds(torch.randn(batch, 17, 24), torch.ones(batch, 17, dtype=torch.long))


def test_batch_of_one_has_no_itm_and_a_finite_loss() -> None:
    ids = torch.tensor([[2, 7, 8, 3]])
    result = make_branch().stage1_losses(images(1), ids, torch.ones_like(ids), 0, 59)
    assert set(result.losses) == {"itc", "lm"}
    assert result.losses["itc"].item() == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(result.losses["lm"])


def test_queries_do_not_see_the_caption_they_generate_from() -> None:
    """Text changes must not change ITC's image side, and later words no earlier prediction."""
    branch = make_branch().eval()
    image = images(1)
    past = branch.query(image, use_cache=True).past_key_values
    ids = torch.tensor([[59, 7, 8, 9, 10]])
    changed = torch.tensor([[59, 7, 8, 20, 21]])
    atts = torch.ones_like(ids)
    first = branch._generation_logits(ids, atts, past)
    second = branch._generation_logits(changed, atts, past)
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3:], second[:, 3:])


def test_masked_image_tokens_have_no_influence() -> None:
    branch = make_branch().eval()
    embeds = torch.randn(2, 17, 24)
    atts = torch.ones(2, 17, dtype=torch.long)
    atts[:, 10:] = 0
    other = embeds.clone()
    other[:, 10:] = 99.0
    first = branch.query(ImageEmbeds(embeds, atts)).last_hidden_state
    torch.testing.assert_close(
        first, branch.query(ImageEmbeds(other, atts)).last_hidden_state, atol=1e-6, rtol=1e-6
    )


def test_stage2_branch_has_no_text_half() -> None:
    branch = make_branch(embed_dim=None, llm_width=12)
    names = [name for name, _ in branch.named_parameters()]
    assert not any("word_embeddings" in n or ".cls." in n or "text_proj" in n for n in names)
    assert branch.visual_prefix(images(3)).shape == (3, 6, 12)


def blip2_weights(branch: QFormerBranch) -> dict[str, Tensor]:
    names = {"qformer.": "Qformer.", "encoder.vit.": "visual_encoder.", "encoder.ln.": "ln_vision."}
    renamed = {}
    for key, value in branch.state_dict().items():
        old = next((prefix for prefix in names if key.startswith(prefix)), None)
        renamed[names[old] + key[len(old) :] if old else key] = torch.randn_like(value.float())
    for alias, first in ALIASES.items():
        renamed["Q" + alias[1:]] = renamed["Q" + first[1:]]
    return renamed


def test_blip2_checkpoint_fills_qformer_queries_heads_and_norm() -> None:
    branch = make_branch()
    vit_before = branch.encoder.vit.cls_token.clone()
    weights = blip2_weights(branch)
    report = initialize_branch(branch, weights, "blip2.pth")
    assert torch.equal(branch.query_tokens, weights["query_tokens"])
    assert torch.equal(branch.encoder.ln.weight, weights["ln_vision.weight"])
    key = "bert.encoder.layer.0.crossattention.self.key.weight"
    assert torch.equal(dict(branch.qformer.named_parameters())[key], weights[f"Qformer.{key}"])
    assert torch.equal(branch.encoder.vit.cls_token, vit_before)
    assert "the frozen ViT has a file of its own" in report.expected_unused
    weights["Qformer.bert.renamed.weight"] = weights.pop(
        "Qformer.bert.encoder.layer.1.output.dense.weight"
    )
    with pytest.raises(WeightsError, match=r"missing: qformer.*layer.1.output.dense"):
        initialize_branch(branch, weights, "blip2.pth")


def test_bert_fills_the_text_half_and_copies_it_to_the_queries() -> None:
    branch = make_branch()
    bert = {
        key: torch.randn_like(value)
        for key, value in build_qformer(SIZE, 24, 6).state_dict().items()
        if "_query" not in key and "crossattention" not in key and "position_ids" not in key
    }
    word = "bert.embeddings.word_embeddings.weight"
    for key in (word, "cls.predictions.bias"):
        bert[key] = bert[key][:-1]  # BERT does not know [DEC]
    for key in [key for key in bert if "predictions.decoder" in key]:
        del bert[key]
    bert["bert.pooler.dense.weight"] = torch.zeros(1)
    initialize_branch(branch, bert, "bert")
    own = dict(branch.qformer.named_parameters())
    assert torch.equal(own[word][:-1], bert[word])
    dense = "bert.encoder.layer.0.intermediate{}.dense.weight"
    assert torch.equal(own[dense.format("_query")], bert[dense.format("")])


def test_eva_file_with_its_own_names_and_another_size_is_fitted() -> None:
    big = EvaClipEncoder(**{**EVA, "image_size": 64, "depth": 3})
    published = {
        key[4:]: value for key, value in big.state_dict().items() if key.startswith("vit.")
    }
    published["norm.weight"] = torch.ones(24)
    encoder = build_encoder("eva_clip", EVA, published, "eva_vit_g.pth")
    assert torch.equal(encoder.vit.blocks[1].mlp.fc1.weight, published["blocks.1.mlp.fc1.weight"])
    assert encoder.vit.pos_embed.shape == (1, 17, 24)
    del published["blocks.0.mlp.fc1.weight"]
    with pytest.raises(WeightsError, match=r"missing: vit.blocks.0.mlp.fc1.weight"):
        build_encoder("eva_clip", EVA, published, "eva_vit_g.pth")
