"""Trains the two vocabularies: WordPiece for the Q-Formers, byte-level BPE for OPT."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer

WORDPIECE_SIZE = 800
BPE_SIZE = 896
OPT_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]  # ids 0-3, as in the OPT release


def train_wordpiece(texts: Sequence[str], folder: Path) -> int:
    """Writes ``vocab.txt``; returns the vocabulary size without [DEC], which the model adds."""
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(
        texts, vocab_size=WORDPIECE_SIZE, min_frequency=3, show_progress=False
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_model(str(folder))
    return tokenizer.get_vocab_size()


def train_bpe(texts: Sequence[str], folder: Path) -> int:
    """Writes ``vocab.json``, ``merges.txt`` and OPT's tokenizer settings; returns the size."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        texts,
        vocab_size=BPE_SIZE,
        min_frequency=3,
        special_tokens=OPT_SPECIALS,
        show_progress=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_model(str(folder))
    special = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    settings = {
        **special,
        "tokenizer_class": "GPT2Tokenizer",
        "add_bos_token": True,
        "add_prefix_space": False,
        "errors": "replace",
        "model_max_length": 256,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return tokenizer.get_vocab_size()
