"""Trains a miniature but complete SAM (encoder, prompt encoder, mask decoder) to segment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Trainer, save_half, seed_everything
from PIL import Image
from safetensors.torch import load_file
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import Tensor, nn
from torch.nn import functional as F

from lavis_msmedcap.imaging.read import read_image
from lavis_msmedcap.imaging.views import make_sam_view, normalize_sam

BATCH, STEPS, LEARNING_RATE = 12, 800, 1e-3
DECODER_STEPS = 300
FEATURE_SPREAD = 2.0
MASK_SIZE = 64  # SAM's low-resolution masks: 4 x the feature map


def build_sam(settings: dict[str, Any]) -> Sam:
    """Builds SAM at the demo's size from ``model.branches.sam.encoder``."""
    side, patch, channels = settings["image_size"], settings["patch_size"], settings["out_chans"]
    grid = side // patch
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=side,
            patch_size=patch,
            embed_dim=settings["width"],
            depth=settings["depth"],
            num_heads=settings["num_heads"],
            mlp_ratio=settings["mlp_ratio"],
            out_chans=channels,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=settings["window_size"],
            global_attn_indexes=tuple(settings["global_attn_indexes"]),
        ),
        prompt_encoder=PromptEncoder(channels, (grid, grid), (side, side), mask_in_chans=8),
        mask_decoder=MaskDecoder(
            transformer_dim=channels,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=channels, mlp_dim=4 * channels, num_heads=4
            ),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=channels,
        ),
    )


def load_masks(pairs: Sequence[tuple[Path, Path]], side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns SAM views uint8 (n, 3, T, T), valid sizes (n, 2), masks bool (n, T, T)."""
    views, sizes, masks = [], [], []
    for image_path, mask_path in pairs:
        view, valid = make_sam_view(read_image(str(image_path)), side)
        height, width = int(valid[0]), int(valid[1])
        mask = Image.open(mask_path).convert("L").resize((width, height))
        canvas = np.zeros((side, side), dtype=bool)
        canvas[:height, :width] = np.asarray(mask) > 127
        if canvas.sum() < 4:
            continue
        views.append(view)
        sizes.append((height, width))
        masks.append(torch.from_numpy(canvas))
    return torch.stack(views), torch.tensor(sizes), torch.stack(masks)


def random_prompt(mask: Tensor) -> dict[str, Any]:
    """Draws a point inside the mask or, half the time, a loose box around it."""
    ys, xs = torch.nonzero(mask, as_tuple=True)
    if torch.rand(()) < 0.5:
        pick = int(torch.randint(len(ys), ()))
        point = torch.tensor([[[xs[pick], ys[pick]]]]).float() + 0.5
        return {"points": (point, torch.ones(1, 1)), "boxes": None}
    box = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
    return {"points": None, "boxes": (box + torch.randn(4))[None]}


def predict(sam: Sam, embedding: Tensor, prompt: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Decodes one image (1, S, h, w): mask logits (3, 64, 64) and predicted overlap (3,)."""
    sparse, dense = sam.prompt_encoder(masks=None, **prompt)
    masks, overlap = sam.mask_decoder(
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    return masks[0], overlap[0]


def mask_loss(logits: Tensor, overlap: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of the best of three masks (cross-entropy, dice) and of the predicted overlaps.

    Returns:
        The loss, and the overlap (intersection over union) of the best mask.
    """
    target = target.expand_as(logits)
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2))
    share = logits.sigmoid()
    dice = 1 - (2 * (share * target).sum((1, 2)) + 1) / (share + target).sum((1, 2)).add(1)
    hard = logits > 0
    both = (hard & (target > 0.5)).sum((1, 2))
    iou = both / (hard | (target > 0.5)).sum((1, 2)).clamp_min(1)
    best = (5 * cross + dice).argmin()
    loss = 5 * cross[best] + dice[best] + F.mse_loss(overlap, iou.detach().float())
    return loss, iou.max()


def grid_coordinates(side: int) -> Tensor:
    """Returns row and column of each position of the feature map, float (2, side, side) in 0..1."""
    steps = torch.linspace(0, 1, side)
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"))


class Segmentation:
    """Images, masks and the loss of one training.

    Args:
        pairs: Image and mask files; the last 200 are held out.
        side: Side of the SAM view in pixels.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], side: int) -> None:
        self.views, self.sizes, self.masks = load_masks(pairs, side)
        low = F.interpolate(self.masks[:, None].float(), size=(MASK_SIZE, MASK_SIZE), mode="area")
        self.targets = low[:, 0]
        self.count = len(self.views) - 200

    def __iter__(self) -> Iterator[Tensor]:
        whole = self.count // BATCH * BATCH
        return iter(torch.randperm(self.count)[:whole].split(BATCH))

    def embed(self, sam: Sam, rows: Tensor) -> Tensor:
        """Returns the image embeddings (B, S, h, w) of some images."""
        return sam.image_encoder(normalize_sam(self.views[rows], self.sizes[rows]))

    def loss(self, sam: Sam, embeddings: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean loss, and the overlap of the best mask of each image."""
        results = [
            mask_loss(
                *predict(sam, embedding[None], random_prompt(self.masks[row])), self.targets[row]
            )
            for embedding, row in zip(embeddings, rows.tolist())
        ]
        return torch.stack([r[0] for r in results]).mean(), torch.stack([r[1] for r in results])

    @torch.no_grad()
    def held_out_overlap(self, sam: Sam) -> float:
        """Returns the mean overlap on the images that were held out."""
        sam.eval()
        overlaps = [
            self.loss(sam, self.embed(sam, rows), rows)[1]
            for rows in torch.arange(self.count, len(self.views)).split(BATCH)
        ]
        return round(torch.cat(overlaps).mean().item(), 3)


def train_sam(
    pairs: Sequence[tuple[Path, Path]], out: Path, settings: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Trains and saves SAM in the layout of published checkpoints; returns the figures.

    Besides segmenting, each feature must tell its position (a linear head, thrown away): published
    encoders know it from their masked-autoencoder start, and a prompt alone does not teach it.

    Args:
        pairs: Image and mask files; the last 200 are held out.
        out: Assets folder.
        settings: ``model.branches.sam.encoder`` of the demo configuration.
        seed: Random seed.
    """
    seed_everything(seed)
    sam = build_sam(settings)
    data = Segmentation(pairs, settings["image_size"])
    locate = nn.Conv2d(settings["out_chans"], 2, kernel_size=1)
    coordinates = grid_coordinates(settings["image_size"] // settings["patch_size"])
    trainer = Trainer(nn.ModuleList([sam, locate]), STEPS, LEARNING_RATE, "SAM")
    for rows in trainer.progress(data):
        embeddings = data.embed(sam, rows)
        located = F.mse_loss(locate(embeddings), coordinates.expand(len(rows), -1, -1, -1))
        trainer.step(data.loss(sam, embeddings, rows)[0] + 5 * located)
    overlap = data.held_out_overlap(sam)
    save_half(sam.state_dict(), out / "sam.safetensors", "complete SAM, trained on phantom masks")
    return {
        "images": data.count,
        "steps": STEPS,
        "batch": BATCH,
        "seconds": round(trainer.seconds),
        "held_out_iou": overlap,
        "parameters": sum(p.numel() for p in sam.parameters()),
    }


def standardize_sam(
    pairs: Sequence[tuple[Path, Path]], out: Path, settings: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Gives every channel of the saved SAM's features mean 0 and one spread; decoders adapt.

    The statistics go into the scale and shift of the neck's last norm, so the network stays what it
    is. A constant part in every token, larger than what differs between tokens, would let a small
    Q-Former look everywhere at once for a long time.

    Args:
        pairs: As in `train_sam`.
        out: Assets folder with a trained ``sam.safetensors``.
        settings: ``model.branches.sam.encoder`` of the demo configuration.
        seed: Random seed.
    """
    seed_everything(seed)
    sam = build_sam(settings)
    sam.load_state_dict(load_file(out / "sam.safetensors"))
    data = Segmentation(pairs, settings["image_size"])
    norm = sam.image_encoder.neck[-1]
    with torch.no_grad():
        features = torch.cat([data.embed(sam, r) for r in torch.arange(600).split(60)])
        mean, spread = features.mean((0, 2, 3)), features.std((0, 2, 3))
        norm.weight.mul_(FEATURE_SPREAD / spread)
        norm.bias.sub_(mean).mul_(FEATURE_SPREAD / spread)
    sam.image_encoder.requires_grad_(False)
    trainer = Trainer(sam, DECODER_STEPS, LEARNING_RATE, "SAM decoders")
    for rows in trainer.progress(data):
        trainer.step(data.loss(sam, data.embed(sam, rows), rows)[0])
    overlap = data.held_out_overlap(sam)
    save_half(sam.state_dict(), out / "sam.safetensors", "complete SAM, trained on phantom masks")
    return {
        "steps": DECODER_STEPS,
        "batch": BATCH,
        "seconds": round(trainer.seconds),
        "held_out_iou": overlap,
    }
