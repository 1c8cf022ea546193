"""Any causal LM that transformers can load: tiny ones with random weights, saved by the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llms import FAMILIES, write_model
from tiny_models import TEXTS, train_steps
from transformers import AutoModelForCausalLM, BertConfig

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.captioner import caption_loss
from lavis_msmedcap.models.decoding import generate
from lavis_msmedcap.models.encoders.freeze import is_frozen
from lavis_msmedcap.models.gradient_checkpointing import decoder_layers
from lavis_msmedcap.models.llm import load_llm, load_tokenizer
from lavis_msmedcap.models.llm_cache import CachedLlm
from lavis_msmedcap.models.llm_text import caption_inputs, end_of_caption_id, prompt_inputs
from lavis_msmedcap.models.msmedcap import MSMedCap


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("llm") / request.param
    return write_model(target, request.param, **FAMILIES[request.param])


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llm") / "gpt2", "gpt2", **FAMILIES["gpt2"])


class TestFamilies:
    def test_weights_are_those_of_the_file_and_frozen(self, folder: Path) -> None:
        llm, _ = load_llm(folder, folder)
        stored = load_file(folder / "model.safetensors")
        own = dict(llm.named_parameters())
        assert own.keys() == stored.keys()
        assert all(torch.equal(own[name], stored[name]) for name in own)
        torch.nn.Sequential(llm).train()
        assert is_frozen(llm)
        assert len(decoder_layers(llm)) == llm.config.num_hidden_layers

    def test_same_logits_as_hugging_faces_own_loading(self, folder: Path) -> None:
        llm, _ = load_llm(folder, folder)
        theirs = AutoModelForCausalLM.from_pretrained(str(folder)).eval()
        ids = torch.arange(12)[None] * 7
        assert torch.equal(llm(ids).logits, theirs(ids).logits)

    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    def test_parameters_have_the_precision(self, folder: Path, precision: str) -> None:
        llm, tokenizer = load_llm(folder, folder, precision)
        wanted = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
        assert {parameter.dtype for parameter in llm.parameters()} == {wanted}
        width = llm.get_input_embeddings().embedding_dim
        captions = generate(
            llm,
            torch.randn(2, 3, width),
            *prompt_inputs(tokenizer, ["a photo", ""]),
            eos_token_id=end_of_caption_id(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            num_beams=2,
            max_new_tokens=4,
        )
        assert len(captions) == 2

    @torch.no_grad()
    def test_cache_equals_a_full_pass_with_padding_and_reordering(self, folder: Path) -> None:
        llm, tokenizer = load_llm(folder, folder)
        ids, mask = prompt_inputs(tokenizer, ["a photo of", "axial CT of the abdomen: a mass"])
        assert (mask[0] == 0).any()
        width = llm.get_input_embeddings().embedding_dim
        torch.manual_seed(0)
        prefix = torch.randn(2, 5, width)
        new = torch.randint(1, 200, (4, 3))
        rows = torch.tensor([1, 1, 3, 2])
        cached = CachedLlm(llm, prefix, ids, mask, max_new_tokens=4)
        cached.read_prompt(copies=2)
        cached.read_tokens(new[:, 0])
        cached.reorder(rows)
        cached.read_tokens(new[:, 1])
        got = cached.read_tokens(new[:, 2])
        for row in range(4):
            image = row // 2
            prompt = ids[image, mask[image] == 1]
            text = torch.cat([prompt, new[rows[row], :1], new[row, 1:]])
            embeds = llm.get_input_embeddings()(text[None])
            full = llm(inputs_embeds=torch.cat([prefix[image : image + 1], embeds], 1))
            torch.testing.assert_close(got[row], full.logits[0, -1], atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("num_beams", [1, 4])
    def test_same_caption_alone_and_in_a_batch(self, folder: Path, num_beams: int) -> None:
        llm, tokenizer = load_llm(folder, folder)
        torch.manual_seed(1)
        prefix = torch.randn(4, 5, llm.get_input_embeddings().embedding_dim)
        prompts = ["a photo of", "axial CT of the abdomen: a mass", "", "a"]
        settings = {
            "num_beams": num_beams,
            "max_new_tokens": 10,
            "eos_token_id": end_of_caption_id(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
        }
        together = generate(llm, prefix, *prompt_inputs(tokenizer, prompts), **settings)
        alone = [
            generate(
                llm, prefix[i : i + 1], *prompt_inputs(tokenizer, prompts[i : i + 1]), **settings
            )
            for i in range(4)
        ]
        assert together == [row for rows in alone for row in rows]
        assert len({tuple(row) for row in together}) > 1

    @torch.no_grad()
    def test_greedy_is_that_of_hugging_face(self, folder: Path) -> None:
        """Without a prefix both can start from ids; Hugging Face's end token is ours."""
        llm, tokenizer = load_llm(folder, folder)
        ids, mask = prompt_inputs(tokenizer, ["a photo of a chest"])
        end = end_of_caption_id(tokenizer)
        embeds = llm.get_input_embeddings()(ids)
        ours = generate(
            llm,
            embeds[:, :2],
            ids[:, 2:],
            mask[:, 2:],
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
            num_beams=1,
            max_new_tokens=12,
        )[0]
        theirs = llm.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
        )[0, ids.shape[1] :].tolist()
        assert ours == [token for token in theirs if token != end]
        assert ours

    def test_padding_on_the_right_does_not_change_the_loss(self, folder: Path) -> None:
        llm, tokenizer = load_llm(folder, folder)
        prefix = torch.randn(2, 3, llm.get_input_embeddings().embedding_dim, requires_grad=True)
        captions = ["a mass", "a chest x-ray with a lesion in it."]
        both = caption_loss(llm, prefix, *caption_inputs(tokenizer, ["a", ""], captions, 64))
        first = caption_loss(llm, prefix[:1], *caption_inputs(tokenizer, ["a"], captions[:1], 64))
        torch.testing.assert_close(both.per_sample[:1], first.per_sample, atol=1e-5, rtol=1e-5)
        both.loss.backward()
        assert prefix.grad is not None
        assert prefix.grad.abs().sum(dim=(1, 2)).min() > 0


def test_the_captioner_trains_and_writes_with_gpt2(
    stage2_settings: dict[str, Any], packed_images: torch.Tensor, gpt2: Path
) -> None:
    stage2_settings["llm"] = {
        "weights": str(gpt2),
        "tokenizer": str(gpt2),
        "gradient_checkpointing": True,
    }
    torch.manual_seed(1)
    model = MSMedCap.from_config(stage2_settings)
    assert MSMedCap.missing_inputs(stage2_settings) == []
    losses = train_steps(model, {"image": packed_images, "text_input": TEXTS}, 4)
    assert losses[-1] < losses[0]
    assert len(model.eval().generate({"image": packed_images}, max_length=6)) == 5


class TestText:
    def test_begin_and_padding_fall_back_to_the_end_token(self, gpt2: Path) -> None:
        tokenizer = load_tokenizer(gpt2)
        assert tokenizer.bos_token_id == tokenizer.pad_token_id == tokenizer.eos_token_id == 0
        ids, mask, targets = caption_inputs(tokenizer, ["", ""], ["a", "a chest x-ray."], 64)
        assert (ids[:, 0] == 0).all()  # begins the text, and is seen
        assert (mask[:, 0] == 1).all()
        assert ids[0, -1] == 0  # padding of the same id, which is not
        assert mask[0, -1] == 0
        assert targets[0, -1] == -100

    def test_a_full_stop_does_not_swallow_the_line_break(self, gpt2: Path) -> None:
        tokenizer = load_tokenizer(gpt2)
        tokenizer.add_tokens([".\n"])
        merged = tokenizer("a.\n", add_special_tokens=False).input_ids
        end = end_of_caption_id(tokenizer)
        assert merged[-1] != end  # joined, as by some published tokenizers
        ids, _, _ = caption_inputs(tokenizer, [""], ["a."], 64)
        assert ids[0, -1] == end

    def test_no_tokenizer(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"has none of vocab\.json"):
            load_tokenizer(tmp_path)


class TestFiles:
    def test_file_of_the_bare_network(self, gpt2: Path, tmp_path: Path) -> None:
        """The releases of GPT-2 lack the outer name and hold the mask and the tied head."""
        target = write_model(tmp_path / "bare", "gpt2", **FAMILIES["gpt2"])
        whole = load_file(target / "model.safetensors")
        bare = {name[len("transformer.") :]: value for name, value in whole.items()}
        bare["h.0.attn.bias"] = torch.ones(1, 1, 96, 96)
        bare["lm_head.weight"] = bare["wte.weight"].clone()
        save_file(bare, target / "model.safetensors")
        llm, _ = load_llm(target, target)
        ids = torch.arange(8)[None]
        assert torch.equal(llm(ids).logits, load_llm(gpt2, gpt2)[0](ids).logits)
        bare["lm_head.weight"] = bare["lm_head.weight"] + 1
        save_file(bare, target / "model.safetensors")
        with pytest.raises(WeightsError, match="ties them"):
            load_llm(target, target)

    def test_a_missing_and_a_stray_weight(self, tmp_path: Path) -> None:
        target = write_model(tmp_path / "gpt2", "gpt2", **FAMILIES["gpt2"])
        state = load_file(target / "model.safetensors")
        state["transformer.stray"] = state.pop("transformer.h.0.mlp.c_fc.bias")
        save_file(state, target / "model.safetensors")
        with pytest.raises(WeightsError, match=r"(?s)missing: .*c_fc\.bias.*unexpected: .*stray"):
            load_llm(target, target)

    def test_unknown_model(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "no_such_llm"}')
        with pytest.raises(WeightsError, match=r"transformers .* does not know"):
            load_llm(tmp_path, tmp_path)

    def test_code_of_a_checkpoint_is_not_run(self, tmp_path: Path) -> None:
        target = write_model(tmp_path / "gpt2", "gpt2", **FAMILIES["gpt2"])
        config = json.loads((target / "config.json").read_text())
        config["auto_map"] = {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Config"}
        (target / "config.json").write_text(json.dumps(config))
        (target / "evil.py").write_text("raise SystemExit('the code of the checkpoint was run')")
        llm, _ = load_llm(target, target)
        assert type(llm).__module__.startswith("transformers.")

    def test_a_model_that_sees_the_future(self, tmp_path: Path) -> None:
        sizes = {
            "hidden_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        }
        assert not BertConfig().is_decoder
        target = write_model(tmp_path / "bert", "bert", **sizes)
        with pytest.raises(WeightsError, match=r"tokens that come later|cannot be used"):
            load_llm(target, target)
