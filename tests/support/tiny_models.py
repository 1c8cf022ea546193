"""Tiny settings of both models: random encoders, tokenizers trained on a few sentences."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer

from lavis_msmedcap.imaging.views import pack_views
from lavis_msmedcap.models.opt import build_opt

SENTENCES = [
    "axial ct of the chest showing a round lesion in the left upper lobe",
    "two red circles above a blue square",
    "Question: Describe the image. Answer: a radiograph of the hand\n",
]
# one for each of `packed_images`
TEXTS = ["axial ct of the chest", "two red circles", "a round lesion", "a blue square", "hand"]
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
OPT_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]


def _write_opt(folder: Path) -> None:
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        SENTENCES, vocab_size=320, special_tokens=OPT_SPECIALS, show_progress=False
    )
    folder.mkdir()
    tokenizer.save_model(str(folder))
    special = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**special, "add_bos_token": True}))
    config = {
        "model_type": "opt",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 24,
        "word_embed_proj_dim": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 48,
        "max_position_embeddings": 128,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "dropout": 0.1,
    }
    torch.manual_seed(0)
    model = build_opt(config)
    for parameter in model.parameters():  # the initial spread of 0.02 makes every caption alike
        parameter.data.mul_(8)
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


@torch.no_grad()
def spread(module: torch.nn.Module, seed: int = 0) -> None:
    """Redraws all matrices so large that outputs differ from image to image and step to step.

    The initial spread of BERT leaves every score alike, and its draws depend on the version of
    transformers.
    """
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(module.named_parameters()):
        if parameter.ndim > 1:
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn * 2 / parameter[0].numel() ** 0.5)


def train_steps(model: Any, samples: dict[str, Any], count: int) -> list[float]:
    """Trains some steps on one batch, each with the same dropout; returns their losses."""
    optimizer = torch.optim.AdamW(model.get_optimizer_params(0.05), lr=1e-2)
    model.train()
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        torch.manual_seed(0)
        loss = model(samples)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="session")
def tiny_assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny_assets")
    _write_opt(root / "opt")
    (root / "qformer").mkdir()
    (root / "qformer" / "vocab.txt").write_text("\n".join(_word_pieces()) + "\n")
    return root


def _word_pieces() -> list[str]:
    """Special tokens, characters and words; a trained vocabulary differs from run to run."""
    words = sorted(set(" ".join(SENTENCES).lower().replace(":", " : ").replace(".", " . ").split()))
    characters = sorted(set("".join(words)))
    return list(
        dict.fromkeys([*BERT_SPECIALS, *characters, *(f"##{c}" for c in characters), *words])
    )


@pytest.fixture
def stage1_settings(tiny_assets: Path) -> dict[str, Any]:
    vit = {"patch_size": 8, "width": 24, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
    clip = {"name": "eva_clip", "weights": None, "image_size": 16, **vit}
    sam = {
        "name": "sam",
        "weights": None,
        "image_size": 32,
        **vit,
        "window_size": 2,
        "global_attn_indexes": [1],
        "out_chans": 16,
    }
    return {
        "arch": "blip2_dual_qformer",
        "model_type": "demo",
        "load_finetuned": False,
        "branches": {
            "clip": {"train_on": ["general"], "num_query_token": 3, "encoder": clip},
            "sam": {"train_on": ["general", "medical"], "num_query_token": 4, "encoder": sam},
        },
        "qformer": {
            "tokenizer": str(tiny_assets / "qformer"),
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "intermediate_size": 32,
            "cross_attention_freq": 2,
            "dropout": 0.1,
        },
        "embed_dim": 8,
        "max_txt_len": 24,
    }


@pytest.fixture
def stage2_settings(stage1_settings: dict[str, Any], tiny_assets: Path) -> dict[str, Any]:
    settings = copy.deepcopy(stage1_settings)
    del settings["embed_dim"]
    return {
        **settings,
        "arch": "msmedcap",
        "stage1": None,
        "prompt": "Question: Describe the image. Answer:",
        "max_txt_len": 64,
        "llm": {"weights": str(tiny_assets / "opt"), "tokenizer": str(tiny_assets / "opt")},
    }


@pytest.fixture
def packed_images() -> torch.Tensor:
    """uint8 (5, n): five random images, the fourth not square."""
    generator = torch.Generator().manual_seed(3)
    images = []
    for index in range(5):
        clip = torch.randint(0, 256, (3, 16, 16), generator=generator, dtype=torch.uint8)
        sam = torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)
        size = (32, 20) if index == 3 else (32, 32)
        sam[:, :, size[1] :] = 0
        images.append(pack_views(clip, sam, size, size))
    return torch.stack(images)
