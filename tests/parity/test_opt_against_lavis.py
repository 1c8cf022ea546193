"""OPT's loss and captions against LAVIS' Blip2OPT under transformers 4.26, on the same weights."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import transformers
from lavis.models.blip2_models.blip2_opt import Blip2OPT
from tokenizers import ByteLevelBPETokenizer
from torch import nn
from transformers import AutoTokenizer

from lavis_msmedcap.models.decoding import generate
from lavis_msmedcap.models.llm_text import (
    caption_inputs,
    decode_captions,
    end_of_caption_id,
    prompt_inputs,
)
from lavis_msmedcap.models.opt import build_opt, load_opt_tokenizer

pytestmark = pytest.mark.parity
needs_4_26 = pytest.mark.skipif(
    not transformers.__version__.startswith("4.26"),
    reason="LAVIS' own generate works with the transformers 4.26 that it pins, not with later ones",
)

QUERIES, WIDTH, VOCABULARY, PAD, BOS = 6, 32, 100, 1, 2
CAPTIONS = [
    "a chest x-ray with a small lesion in the left lower lobe",
    "axial CT of the abdomen: a 2.5 cm mass (arrow) in the right kidney, no other finding",
    "a dog and a cat on a bench",
    "a mass",
]
SEARCHES = {
    "greedy": {"num_beams": 1},
    "greedy, repetition 1.5": {"num_beams": 1, "repetition_penalty": 1.5},
    "greedy, at least 8": {"num_beams": 1, "min_length": 8},
    "beams": {"num_beams": 5},
    "beams, three captions": {"num_beams": 5, "num_return_sequences": 3},
    "beams, five captions, repetition 1.5": {
        "num_beams": 5,
        "num_return_sequences": 5,
        "repetition_penalty": 1.5,
    },
    "beams, at least 8": {"num_beams": 5, "min_length": 8},
    "beams, long": {"num_beams": 5, "length_penalty": 2.0},
    "beams, short": {"num_beams": 5, "length_penalty": -1.0, "num_return_sequences": 2},
    "beams, all at once": {
        "num_beams": 3,
        "length_penalty": 0.5,
        "repetition_penalty": 1.5,
        "min_length": 8,
        "num_return_sequences": 3,
    },
}


def tiny_opt(seed: int, vocabulary: int, layers: int = 3):
    torch.manual_seed(seed)
    config = {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "word_embed_proj_dim": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "max_position_embeddings": 128,
        "init_std": 0.25,  # tokens differ from step to step
    }
    return build_opt(config).eval()


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        CAPTIONS * 3, vocab_size=340, special_tokens=["<s>", "<pad>", "</s>", "<unk>"]
    )
    bpe.save_model(str(folder))
    special = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    settings = {**special, "add_bos_token": True, "tokenizer_class": "GPT2Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


class FixedQueries(nn.Module):
    """Stands for LAVIS' Q-Former: hands on what it was given as image features."""

    def forward(self, encoder_hidden_states, **_ignored):
        return SimpleNamespace(last_hidden_state=encoder_hidden_states)


def lavis_captioner(opt, folder, prompt: str, max_txt_len: int) -> Blip2OPT:
    """LAVIS' Blip2OPT around a given OPT; ``samples["image"]`` are its Q-Former's outputs."""
    model = object.__new__(Blip2OPT)
    nn.Module.__init__(model)
    model.visual_encoder = nn.Identity()
    model.ln_vision = nn.Identity()
    model.query_tokens = nn.Parameter(torch.zeros(1, QUERIES, 16))
    model.Qformer = nn.Module()
    model.Qformer.bert = FixedQueries()
    model.opt_model = opt
    model.opt_tokenizer = AutoTokenizer.from_pretrained(str(folder), use_fast=False)
    model.opt_proj = nn.Linear(16, WIDTH)
    model.eos_token_id = model.opt_tokenizer("\n", add_special_tokens=False).input_ids[0]
    model.max_txt_len = max_txt_len
    model.prompt = prompt
    model.prompt_length = model.opt_tokenizer(prompt, return_tensors="pt").attention_mask.sum(1)
    return model.eval()


def our_loss(opt, prefix, inputs) -> torch.Tensor:
    """The captioner's loss: prefix, then text; nothing to predict at the prefix."""
    embeds = torch.cat([prefix, opt.get_input_embeddings()(inputs.input_ids)], 1)
    seen = torch.ones(prefix.shape[:2], dtype=torch.long)
    return opt(
        inputs_embeds=embeds,
        attention_mask=torch.cat([seen, inputs.attention_mask], 1),
        labels=torch.cat([torch.full_like(seen, -100), inputs.targets], 1),
    ).loss


class TestTrainingLoss:
    @pytest.mark.parametrize("prompt", ["", "a photo of"])
    @pytest.mark.parametrize("max_txt_len", [14, 128])
    def test_loss_and_gradient(self, tokenizer_dir, prompt: str, max_txt_len: int) -> None:
        tokenizer = load_opt_tokenizer(tokenizer_dir)
        opt = tiny_opt(0, len(tokenizer))
        lavis = lavis_captioner(opt, tokenizer_dir, prompt, max_txt_len)
        features = torch.randn(len(CAPTIONS), QUERIES, 16)
        texts = [f"{prompt} {caption}".strip() for caption in CAPTIONS]
        theirs = lavis({"image": features, "text_input": texts})["loss"]
        inputs = caption_inputs(
            tokenizer, [prompt] * len(CAPTIONS), CAPTIONS, max_txt_len, mask_bos=False
        )
        ours = our_loss(opt, lavis.opt_proj(features), inputs)
        assert ours.item() == theirs.item()
        gradients = [torch.autograd.grad(loss, lavis.opt_proj.weight)[0] for loss in (ours, theirs)]
        assert torch.equal(*gradients)

    def test_leaving_bos_out_changes_the_loss_only_without_prompt(self, tokenizer_dir) -> None:
        tokenizer = load_opt_tokenizer(tokenizer_dir)
        opt = tiny_opt(0, len(tokenizer))
        prefix = torch.randn(len(CAPTIONS), QUERIES, WIDTH)
        for prompt in ("", "a photo of"):
            losses = [
                our_loss(opt, prefix, caption_inputs(tokenizer, [prompt] * 4, CAPTIONS, 64, mask))
                for mask in (True, False)
            ]
            assert (losses[0].item() == losses[1].item()) == bool(prompt)


def lavis_tokens(opt, prefix, ids, eos: int, copies: int, **rules) -> list[list[int]]:
    """What LAVIS' generate hands to its OPT, and its answer without prompt, end and padding."""
    mask = torch.ones(len(ids), QUERIES + ids.shape[1], dtype=torch.long)
    output = opt.generate(
        input_ids=ids,
        query_embeds=prefix.repeat_interleave(copies, dim=0),
        attention_mask=mask,
        max_new_tokens=15,
        eos_token_id=eos,
        **rules,
    )
    rows = output[:, ids.shape[1] :].tolist()
    return [row[: row.index(eos)] if eos in row else row for row in rows]


def search_case(seed: int):
    """A model, a batch with prompts of one length, and an end token that comes up now and then."""
    opt = tiny_opt(seed, VOCABULARY)
    ids = torch.randint(3, VOCABULARY, (3, 1 + seed % 5))
    ids[:, 0] = BOS
    prefix = torch.randn(3, QUERIES, WIDTH)
    free = generate(
        opt,
        prefix,
        ids,
        torch.ones_like(ids),
        num_beams=1,
        max_new_tokens=15,
        min_length=15,
        eos_token_id=0,
        pad_token_id=PAD,
    )
    common = Counter(token for row in free for token in row[2:]).most_common(3)
    return opt, prefix, ids, common[-1][0]


@needs_4_26
class TestGenerate:
    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("rules", SEARCHES.values(), ids=SEARCHES.keys())
    def test_search(self, rules: dict, seed: int) -> None:
        opt, prefix, ids, eos = search_case(seed)
        theirs = lavis_tokens(opt, prefix, ids, eos, rules["num_beams"], **rules)
        ours = generate(
            opt,
            prefix,
            ids,
            torch.ones_like(ids),
            max_new_tokens=15,
            eos_token_id=eos,
            pad_token_id=PAD,
            **rules,
        )
        assert ours == theirs

    def test_search_cases_end_early_and_late(self) -> None:
        """Guards the comparison: captions of many lengths, and rules that change them."""
        found = {name: [] for name in SEARCHES}
        for seed in range(6):
            opt, prefix, ids, eos = search_case(seed)
            for name, rules in SEARCHES.items():
                found[name] += lavis_tokens(opt, prefix, ids, eos, rules["num_beams"], **rules)
        assert len({len(row) for rows in found.values() for row in rows}) > 8
        for rows in (found["beams, at least 8"], found["beams, long"], found["beams, short"]):
            assert rows[: len(found["beams"])] != found["beams"]

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("temperature", [1.0, 1.6])
    def test_sampling_from_the_same_stream(self, seed: int, temperature: float) -> None:
        """LAVIS names no top_k: the equality also shows that 50 is what it runs with."""
        opt, prefix, ids, eos = search_case(seed)
        rules = {"do_sample": True, "top_p": 0.9, "temperature": temperature}
        rules["num_return_sequences"] = 3
        torch.manual_seed(seed)
        theirs = lavis_tokens(opt, prefix, ids, eos, 3, num_beams=1, **rules)
        ours = generate(
            opt,
            prefix,
            ids,
            torch.ones_like(ids),
            max_new_tokens=15,
            eos_token_id=eos,
            pad_token_id=PAD,
            generator=torch.Generator().manual_seed(seed),
            **rules,
        )
        assert ours == theirs

    @pytest.mark.parametrize("prompt", ["", "a photo of"])
    @pytest.mark.parametrize("nucleus", [False, True])
    def test_texts_of_the_whole_captioner(self, tokenizer_dir, prompt, nucleus) -> None:
        tokenizer = load_opt_tokenizer(tokenizer_dir)
        opt = tiny_opt(1, len(tokenizer))
        lavis = lavis_captioner(opt, tokenizer_dir, prompt, 32)
        features = torch.randn(3, QUERIES, 16)
        torch.manual_seed(5)
        theirs = lavis.generate(
            {"image": features}, use_nucleus_sampling=nucleus, num_captions=2, max_length=12
        )
        tokens = generate(
            opt,
            lavis.opt_proj(features),
            *prompt_inputs(tokenizer, [prompt] * 3),
            do_sample=nucleus,
            max_new_tokens=12,
            num_return_sequences=2,
            eos_token_id=end_of_caption_id(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            generator=torch.Generator().manual_seed(5),
        )
        assert decode_captions(tokenizer, tokens) == theirs
