"""Tiny causal language models of several families, with random weights and a tokenizer each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

END = "<|endoftext|>"
SENTENCES = ["a photo of a chest x-ray with a lesion", "axial CT of the abdomen: a mass.\n"] * 3
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 24, "n_layer": 3, "n_head": 2, "n_positions": 96},
    "gpt_neo": {
        "hidden_size": 24,
        "num_layers": 2,
        "num_heads": 2,
        "max_position_embeddings": 96,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 96, "rotary_dim": 8},
    "gpt_neox": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 96,
        "tie_word_embeddings": False,
    },
    "bloom": {"hidden_size": 24, "n_layer": 2, "n_head": 2},
}


def write_tokenizer(folder: Path) -> int:
    """Writes a fast byte-level tokenizer with one special token, as GPT-2's; returns its size."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=[END], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=END)
    tokenizer.save_pretrained(str(folder))
    return len(tokenizer)


def write_model(folder: Path, model_type: str, **sizes: Any) -> Path:
    """Writes a causal LM whose weights are large enough that its tokens differ."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder)
    config = transformers.AutoConfig.for_model(
        model_type, vocab_size=vocabulary, bos_token_id=0, eos_token_id=0, **sizes
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(6)
    state = {name: value.detach().clone() for name, value in model.named_parameters()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    return folder
