"""Trains the miniature OPT as a language model on phantom captions, notes and general text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from common import Trainer, save_half, seed_everything
from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.models.opt import build_opt, load_opt_tokenizer

BATCH, STEPS, LEARNING_RATE, MAX_LENGTH = 48, 1600, 2e-3, 128
SIZES = {
    "hidden_size": 160,
    "word_embed_proj_dim": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "ffn_dim": 640,
    "max_position_embeddings": 256,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_function": "relu",
    "do_layer_norm_before": True,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
}


def token_rows(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Tokenises documents, each with ``</s>`` in front."""
    return [
        [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids][:MAX_LENGTH]
        for text in texts
    ]


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Pads rows to the longest; returns ids and mask, int64 (B, L)."""
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])


def next_token_loss(model: Any, rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Mean cross-entropy per token."""
    ids, mask = padded(rows, pad)
    logits = model(input_ids=ids, attention_mask=mask, return_dict=True).logits
    targets = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), targets)


def train_opt(texts: Sequence[str], out: Path, seed: int) -> dict[str, Any]:
    """Trains and saves OPT beside its tokenizer; returns the figures for the card.

    Args:
        texts: Documents, each ending with a line break; the last 500 are held out.
        out: Assets folder; ``opt/`` must hold the tokenizer.
        seed: Random seed.
    """
    seed_everything(seed)
    tokenizer = load_opt_tokenizer(out / "opt")
    config = {**SIZES, "vocab_size": len(tokenizer), "model_type": "opt"}
    model = build_opt(config)
    rows = token_rows(texts, tokenizer)
    train, held_out = rows[:-500], rows[-500:]
    trainer = Trainer(model, STEPS, LEARNING_RATE, "OPT")

    class Batches:
        def __iter__(self) -> Any:
            # documents of like length together: less padding
            noise = torch.rand(len(train)) * 12
            order = sorted(range(len(train)), key=lambda i: len(train[i]) + noise[i].item())
            batches = [order[i : i + BATCH] for i in range(0, len(order) - BATCH, BATCH)]
            return (batches[i] for i in torch.randperm(len(batches)).tolist())

    for batch in trainer.progress(Batches()):
        trainer.step(next_token_loss(model, [train[i] for i in batch], tokenizer.pad_token_id))
    model.eval()
    with torch.no_grad():
        held_out_loss = next_token_loss(model, held_out, tokenizer.pad_token_id).item()
    state = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    save_half(state, out / "opt/model.safetensors", "OPT, language model on phantom text")
    architecture = {**config, "architectures": ["OPTForCausalLM"], "torch_dtype": "float16"}
    (out / "opt/config.json").write_text(json.dumps(architecture, indent=2) + "\n")
    return {
        "documents": len(train),
        "steps": STEPS,
        "batch": BATCH,
        "seconds": round(trainer.seconds),
        "held_out_loss_per_token": round(held_out_loss, 3),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
