"""Trains the miniature OPT as a language model on phantom captions, notes and general text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import Trainer, save_half, seed_everything
from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.models.opt import build_opt, load_opt, load_opt_tokenizer

BATCH, MAX_LENGTH = 48, 128
STEPS, LEARNING_RATE = 1600, 2e-3
ANSWER_STEPS, ANSWER_LEARNING_RATE = 900, 1e-3
ANSWER = " Answer:"
EMBEDDING_NOISE = 0.05
COPY_WEIGHT = 10.0  # of answer tokens that stand in the notes: the facts
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
    targets = ids.masked_fill(mask == 0, -100)[:, 1:]
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), targets)


class AnswerLoss(NamedTuple):
    """Loss on answers.

    Attributes:
        loss: Mean over answer tokens; those that stand in the notes count `COPY_WEIGHT` times.
        copied: Share of the answer tokens that stand in the notes and are predicted right.
    """

    loss: Tensor
    copied: Tensor


def answer_loss(
    model: Any, rows: Sequence[Sequence[int]], starts: Sequence[int], pad: int
) -> AnswerLoss:
    """Cross-entropy from position ``starts`` of each row on."""
    ids, mask = padded(rows, pad)
    logits = model(input_ids=ids, attention_mask=mask, return_dict=True).logits[:, :-1]
    answer = (mask == 1) & (torch.arange(ids.shape[1]) >= torch.tensor(starts)[:, None])
    notes = [set(row[1:start]) for row, start in zip(rows, starts)]
    in_notes = torch.tensor(
        [[token in known for token in row] for row, known in zip(ids.tolist(), notes)]
    )
    weights = (answer * torch.where(in_notes, COPY_WEIGHT, 1.0))[:, 1:]
    losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    copies = (answer & in_notes)[:, 1:]
    right = (logits.argmax(-1) == ids[:, 1:])[copies].float().mean()
    return AnswerLoss((losses * weights).sum() / weights.sum(), right)


class SimilarLengths:
    """Batches of documents of like length (less padding), in random order.

    Args:
        rows: Tokenised documents.
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[list[int]]:
        noise = (torch.rand(len(self.rows)) * 12).tolist()
        order = sorted(range(len(self.rows)), key=lambda i: len(self.rows[i]) + noise[i])
        batches = [order[i : i + BATCH] for i in range(0, len(order) - BATCH, BATCH)]
        return (batches[i] for i in torch.randperm(len(batches)).tolist())


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
    pad = tokenizer.pad_token_id
    trainer = Trainer(model, STEPS, LEARNING_RATE, "OPT")
    for batch in trainer.progress(SimilarLengths(train)):
        trainer.step(next_token_loss(model, [train[i] for i in batch], pad))
    model.eval()
    with torch.no_grad():
        held_out_loss = next_token_loss(model, held_out, pad).item()
    save_opt(model, out)
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


def train_answers(texts: Sequence[str], out: Path, seed: int) -> dict[str, Any]:
    """Trains the saved OPT further, on answers alone: captions that follow notes and a question.

    Notes are drawn at random, so that most of the language-model loss cannot be learned; leaving it
    out, and weighing the facts, is what teaches the small model to take them from its context.

    Args:
        texts: Documents; those without an answer are left out, the last 500 are held out.
        out: Assets folder with a trained ``opt/``.
        seed: Random seed.
    """
    seed_everything(seed)
    frozen, tokenizer = load_opt(out / "opt", out / "opt")
    model = build_opt(frozen.config.to_dict())
    model.load_state_dict(frozen.state_dict())
    with torch.no_grad():  # "left" and "right" come out of the first phase as almost one vector
        embedding = model.get_input_embeddings().weight
        embedding.add_(torch.randn_like(embedding) * EMBEDDING_NOISE)
    rows, starts = [], []
    for text in texts:
        notes, answer, _ = text.partition(ANSWER)
        if answer:
            rows += token_rows([text], tokenizer)
            starts.append(len(token_rows([notes + answer], tokenizer)[0]))
    pad = tokenizer.pad_token_id
    trainer = Trainer(model, ANSWER_STEPS, ANSWER_LEARNING_RATE, "answers")

    def loss_of(batch: Sequence[int]) -> AnswerLoss:
        return answer_loss(model, [rows[i] for i in batch], [starts[i] for i in batch], pad)

    held_out = range(len(rows) - 500, len(rows))
    with torch.no_grad():
        before = loss_of(held_out).copied.item()
    for batch in trainer.progress(SimilarLengths(rows[:-500])):
        trainer.step(loss_of(batch).loss)
    model.eval()
    with torch.no_grad():
        after = loss_of(held_out).copied.item()
    save_opt(model, out)
    return {
        "documents": len(rows) - 500,
        "steps": ANSWER_STEPS,
        "batch": BATCH,
        "seconds": round(trainer.seconds),
        "held_out_share_of_facts_copied_right": [round(before, 3), round(after, 3)],
    }


def save_opt(model: Any, out: Path) -> None:
    """Saves the weights without the tied head, in float16."""
    state = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    save_half(state, out / "opt/model.safetensors", "OPT, language model on phantom text")
