"""Trains the miniature EVA ViT contrastively: general pictures against their captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from common import Trainer, save_half, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertTokenizer

from lavis_msmedcap.datasets.readers.coco import read_coco
from lavis_msmedcap.imaging.read import read_image
from lavis_msmedcap.imaging.views import make_clip_view, normalize_clip
from lavis_msmedcap.models.encoders.eva_clip import EvaClipEncoder

BATCH, STEPS, LEARNING_RATE = 64, 800, 1e-3
TEXT_LENGTH = 40


class TextTower(nn.Module):
    """Two transformer layers over word pieces, averaged."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Parameter(torch.randn(TEXT_LENGTH, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids: Tensor, atts: Tensor) -> Tensor:
        """Encodes int64 (B, L) ids with mask (B, L) to (B, width)."""
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        x = self.layers(x, src_key_padding_mask=atts == 0)
        return (x * atts[..., None]).sum(1) / atts.sum(1, keepdim=True)


class ContrastiveModel(nn.Module):
    """Image and text towers with one temperature."""

    def __init__(self, encoder: EvaClipEncoder, vocab_size: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.text = TextTower(vocab_size, encoder.width)
        self.image_proj = nn.Linear(2 * encoder.width, 64)
        self.text_proj = nn.Linear(encoder.width, 64)
        self.log_scale = nn.Parameter(torch.tensor(2.7))

    def similarity(self, views: Tensor, ids: Tensor, atts: Tensor) -> Tensor:
        """Returns (B, B) similarities of images (rows) and texts (columns)."""
        tokens = self.encoder(views).embeds
        pooled = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1)
        image = F.normalize(self.image_proj(pooled), dim=-1)
        text = F.normalize(self.text_proj(self.text(ids, atts)), dim=-1)
        return image @ text.t() * self.log_scale.exp().clamp(max=100)


def load_pairs(root: Path, size: int) -> tuple[Tensor, list[tuple[str, ...]]]:
    """Returns CLIP views uint8 (n, 3, size, size) and the captions of each picture."""
    records = list(
        read_coco(
            root / "coco/annotations/captions_train2014.json", root / "coco/train2014", "train"
        )
    )
    views = torch.stack([make_clip_view(read_image(record.image), size) for record in records])
    return views, [record.captions for record in records]


def train_clip(root: Path, out: Path, model_settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Trains and saves the ViT with its layer norm; returns the figures for the card.

    Args:
        root: Phantom data of a seed that no run configuration uses.
        out: Assets folder; its ``qformer_tokenizer`` must exist.
        model_settings: ``model.branches.clip.encoder`` of the demo configuration.
        seed: Random seed.
    """
    seed_everything(seed)
    tokenizer = BertTokenizer(str(out / "qformer_tokenizer/vocab.txt"))
    names = ("image_size", "patch_size", "width", "depth", "num_heads", "mlp_ratio")
    encoder = EvaClipEncoder(**{name: model_settings[name] for name in names})
    model = ContrastiveModel(encoder, len(tokenizer))
    views, captions = load_pairs(root, encoder.image_size)
    held_out = 256
    train_count = len(captions) - held_out
    trainer = Trainer(model, STEPS, LEARNING_RATE, "CLIP")

    def batch(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        picks = torch.randint(0, 5, (len(rows),)).tolist()
        texts = [
            captions[row][pick % len(captions[row])] for row, pick in zip(rows.tolist(), picks)
        ]
        text = tokenizer(
            texts, padding=True, truncation=True, max_length=TEXT_LENGTH, return_tensors="pt"
        )
        return normalize_clip(views[rows]), text.input_ids, text.attention_mask

    def loss_of(rows: Tensor) -> tuple[Tensor, Tensor]:
        sims = model.similarity(*batch(rows))
        targets = torch.arange(len(rows))
        return (F.cross_entropy(sims, targets) + F.cross_entropy(sims.t(), targets)) / 2, sims

    class Batches:
        def __iter__(self) -> Any:
            return iter(torch.randperm(train_count)[: train_count // BATCH * BATCH].split(BATCH))

    for rows in trainer.progress(Batches()):
        trainer.step(loss_of(rows)[0])
    model.eval()
    with torch.no_grad():
        _, sims = loss_of(torch.arange(train_count, len(captions)))
    recall = (sims.argmax(1) == torch.arange(held_out)).float().mean().item()
    save_half(encoder.state_dict(), out / "eva_clip.safetensors", "EVA ViT, contrastive, general")
    return {
        "images": train_count,
        "steps": STEPS,
        "batch": BATCH,
        "seconds": round(trainer.seconds),
        f"recall_at_1_of_{held_out}": round(recall, 3),
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "data": json.loads((root / "phantom.json").read_text()).get("seed"),
    }
