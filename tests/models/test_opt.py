"""Loading OPT from local files, and the tokens of training texts and prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.encoders.freeze import is_frozen
from lavis_msmedcap.models.llm_text import (
    caption_inputs,
    decode_captions,
    end_of_caption_id,
    prompt_inputs,
)
from lavis_msmedcap.models.opt import build_opt, load_opt, load_opt_tokenizer

SENTENCES = [
    "a photo of a chest x-ray with a small lesion in the left lower lobe",
    "axial CT of the abdomen: a 2.5 cm mass (arrow) in the right kidney, no other finding",
    "a photo of a dog and a cat on a bench in the park",
] * 3
EMBEDDING = "model.decoder.embed_tokens.weight"


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory) -> Path:
    """A byte-level BPE in OPT's layout and with OPT's special tokens."""
    folder = tmp_path_factory.mktemp("tokenizer")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        SENTENCES, vocab_size=340, special_tokens=["<s>", "<pad>", "</s>", "<unk>"]
    )
    bpe.save_model(str(folder))
    special = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {**special, "add_bos_token": True, "tokenizer_class": "GPT2Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    return load_opt_tokenizer(tokenizer_dir)


@pytest.fixture
def model_dir(tmp_path) -> Path:
    """A tiny OPT in the Hugging Face layout, one safetensors file."""
    config = {
        "model_type": "opt",
        "vocab_size": 344,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "max_position_embeddings": 64,
        "torch_dtype": "float16",
    }
    torch.manual_seed(0)
    folder = tmp_path / "opt"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_untied(build_opt(config).state_dict()), folder / "model.safetensors")
    return folder


def _untied(state: dict) -> dict:
    return {name: value.clone() for name, value in state.items() if name != "lm_head.weight"}


def _rewrite(folder: Path, change) -> None:
    state = load_file(folder / "model.safetensors")
    save_file(change(state), folder / "model.safetensors")


class TestLoading:
    def test_values_frozen_tied_and_without_dropout(self, model_dir, tokenizer_dir) -> None:
        opt, _ = load_opt(model_dir, tokenizer_dir)
        stored = load_file(model_dir / "model.safetensors")
        for name, value in opt.state_dict().items():
            assert torch.equal(value, stored[EMBEDDING if name == "lm_head.weight" else name])
        assert opt.lm_head.weight is opt.get_input_embeddings().weight
        torch.nn.Sequential(opt).train()
        assert is_frozen(opt)
        assert opt.config.dropout == 0.1
        ids = torch.tensor([[2, 10, 11]])
        assert torch.equal(opt(ids).logits, opt(ids).logits)

    @pytest.mark.parametrize(
        ("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)]
    )
    def test_precision(self, model_dir, tokenizer_dir, precision, dtype) -> None:
        opt, _ = load_opt(model_dir, tokenizer_dir, precision)
        assert {parameter.dtype for parameter in opt.parameters()} == {dtype}

    def test_every_layout_of_the_weights_gives_the_same(self, model_dir, tokenizer_dir) -> None:
        expected = load_opt(model_dir, tokenizer_dir)[0].state_dict()
        state = load_file(model_dir / "model.safetensors")
        (model_dir / "model.safetensors").unlink()
        names = sorted(state)
        whole = model_dir / "pytorch_model.bin"
        torch.save({**state, "lm_head.weight": state[EMBEDDING]}, whole)
        loaded = [load_opt(model_dir, tokenizer_dir)[0], load_opt(whole, tokenizer_dir)[0]]
        whole.unlink()
        # as some releases: no outer "model.", no lm_head, and a leftover of the training library
        bare = {name[len("model.") :]: value for name, value in state.items()}
        torch.save({**bare, "decoder.version": torch.tensor([3.0])}, whole)
        loaded.append(load_opt(model_dir, tokenizer_dir)[0])
        whole.unlink()
        for suffix, save in ((".bin", torch.save), (".safetensors", save_file)):
            stem = "pytorch_model" if suffix == ".bin" else "model"
            shards = {f"{stem}-1{suffix}": names[:9], f"{stem}-2{suffix}": names[9:]}
            for shard, content in shards.items():
                save({name: state[name] for name in content}, model_dir / shard)
            weight_map = {name: shard for shard, content in shards.items() for name in content}
            index = model_dir / f"{stem}{suffix}.index.json"
            index.write_text(json.dumps({"weight_map": weight_map}))
            loaded.append(load_opt(model_dir, tokenizer_dir)[0])
            index.unlink()
        assert len(loaded) == 5
        for opt in loaded:
            assert all(torch.equal(value, expected[key]) for key, value in opt.state_dict().items())

    def test_untied_head(self, model_dir, tokenizer_dir) -> None:
        config = json.loads((model_dir / "config.json").read_text())
        config["tie_word_embeddings"] = False
        (model_dir / "config.json").write_text(json.dumps(config))
        with pytest.raises(WeightsError, match=r"missing: lm_head\.weight"):
            load_opt(model_dir, tokenizer_dir)
        _rewrite(model_dir, lambda s: {**s, "lm_head.weight": torch.full((344, 32), 0.5)})
        opt, _ = load_opt(model_dir, tokenizer_dir)
        assert (opt.lm_head.weight == 0.5).all()
        assert not torch.equal(opt.lm_head.weight, opt.get_input_embeddings().weight)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda s: {k: v for k, v in s.items() if "fc1.bias" not in k},
                r"missing: .*fc1\.bias",
            ),
            (lambda s: {**s, "stray": torch.ones(1)}, "unexpected: stray"),
            (lambda s: {**s, EMBEDDING: torch.ones(7, 32)}, "wrong shape"),
            (lambda s: {**s, EMBEDDING: s[EMBEDDING] * float("nan")}, "not finite"),
            (lambda s: {**s, "lm_head.weight": s[EMBEDDING] + 1}, "ties them"),
        ],
    )
    def test_weights_that_do_not_fit(self, model_dir, tokenizer_dir, change, message) -> None:
        _rewrite(model_dir, change)
        with pytest.raises(WeightsError, match=message):
            load_opt(model_dir, tokenizer_dir)

    def test_overflow_in_float16(self, model_dir, tokenizer_dir) -> None:
        _rewrite(model_dir, lambda s: {**s, EMBEDDING: s[EMBEDDING] + 1e5})
        with pytest.raises(WeightsError, match="does not fit the range of fp16; use bf16"):
            load_opt(model_dir, tokenizer_dir, "fp16")
        load_opt(model_dir, tokenizer_dir, "bf16")

    def test_pickle_with_code(self, model_dir, tokenizer_dir) -> None:
        (model_dir / "model.safetensors").unlink()
        torch.save({"x": Path("code")}, model_dir / "pytorch_model.bin")
        with pytest.raises(WeightsError, match="refused"):
            load_opt(model_dir, tokenizer_dir)

    def test_missing_files(self, model_dir, tokenizer_dir, tmp_path) -> None:
        (model_dir / "model.safetensors").rename(tmp_path / "elsewhere")
        with pytest.raises(WeightsError, match="no weights in"):
            load_opt(model_dir, tokenizer_dir)
        index = model_dir / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a": "absent.safetensors"}}))
        with pytest.raises(WeightsError, match=r"absent\.safetensors does not exist"):
            load_opt(model_dir, tokenizer_dir)
        index.write_text("[]")
        with pytest.raises(WeightsError, match="not an index"):
            load_opt(model_dir, tokenizer_dir)
        with pytest.raises(WeightsError, match=r"config\.json does not exist"):
            load_opt(tmp_path, tokenizer_dir)

    def test_config_of_another_model(self, model_dir, tokenizer_dir) -> None:
        (model_dir / "config.json").write_text('{"model_type": "gpt2"}')
        with pytest.raises(WeightsError, match="model_type 'gpt2'; expected 'opt'"):
            load_opt(model_dir, tokenizer_dir)
        (model_dir / "config.json").write_text("{")
        with pytest.raises(WeightsError, match="not JSON"):
            load_opt(model_dir, tokenizer_dir)

    def test_precision(self, model_dir, tokenizer_dir) -> None:
        with pytest.raises(ValueError, match="precision 'int8'"):
            load_opt(model_dir, tokenizer_dir, "int8")

    def test_tokenizer_of_another_model(self, model_dir, tokenizer_dir) -> None:
        config = json.loads((model_dir / "config.json").read_text())
        (model_dir / "config.json").write_text(json.dumps({**config, "bos_token_id": 0}))
        with pytest.raises(WeightsError, match="bos_token_id is 2"):
            load_opt(model_dir, tokenizer_dir)

    def test_tokenizer_larger_than_the_model(self, model_dir, tokenizer_dir) -> None:
        config = json.loads((model_dir / "config.json").read_text())
        (model_dir / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
        _rewrite(model_dir, lambda s: {**s, EMBEDDING: s[EMBEDDING][:300].clone()})
        with pytest.raises(WeightsError, match="has 340 tokens, the model only 300"):
            load_opt(model_dir, tokenizer_dir)

    def test_tokenizer_files(self, tmp_path) -> None:
        with pytest.raises(WeightsError, match=r"lacks vocab\.json, merges\.txt"):
            load_opt_tokenizer(tmp_path)

    def test_tokenizer_without_padding(self, tokenizer_dir, tmp_path) -> None:
        for name in ("vocab.json", "merges.txt"):
            (tmp_path / name).write_bytes((tokenizer_dir / name).read_bytes())
        (tmp_path / "tokenizer_config.json").write_text(
            '{"bos_token": "</s>", "unk_token": "</s>"}'
        )
        with pytest.raises(WeightsError, match="no pad_token"):
            load_opt_tokenizer(tmp_path)


class TestTrainingText:
    def test_round_trip_and_targets(self, tokenizer) -> None:
        prompts = ["a photo of ", "axial CT of", ""]
        captions = ["a dog", "the abdomen,\n no  finding.", "a chest x-ray with a lesion"]
        ids, mask, targets = caption_inputs(tokenizer, prompts, captions, 64)
        assert ids.shape == mask.shape == targets.shape
        assert ids.dtype == mask.dtype == targets.dtype == torch.int64
        end = end_of_caption_id(tokenizer)
        told = ["a dog", "the abdomen, no finding.", captions[2]]
        for row, (prompt, caption) in enumerate(zip(prompts, told)):
            length = int(mask[row].sum())
            assert mask[row].tolist() == [1] * length + [0] * (len(mask[row]) - length)
            assert ids[row, 0] == tokenizer.bos_token_id
            assert ids[row, length - 1] == end
            text = f"{prompt.rstrip()} {caption}".strip()
            assert tokenizer.decode(ids[row, 1 : length - 1]) == text
            learned = targets[row] >= 0
            assert torch.equal(targets[row][learned], ids[row][learned])
            assert decode_captions(tokenizer, [targets[row][learned].tolist()]) == [caption]
        assert mask.sum(1).max() == ids.shape[1]

    def test_bos_counts_only_when_asked_and_without_prompt(self, tokenizer) -> None:
        both = [
            caption_inputs(tokenizer, ["", "a photo of"], ["a cat", "a cat"], 32, mask_bos=mask)
            for mask in (True, False)
        ]
        assert both[0].targets[0, 0] == -100
        assert both[1].targets[0, 0] == tokenizer.bos_token_id
        assert torch.equal(both[0].targets[1], both[1].targets[1])
        assert torch.equal(both[0].targets[:, 1:], both[1].targets[:, 1:])

    def test_truncation_keeps_the_prompt_and_loses_the_end(self, tokenizer) -> None:
        prompt, caption = "a photo of", SENTENCES[1]
        whole = caption_inputs(tokenizer, [prompt], [caption], 1000)
        head = prompt_inputs(tokenizer, [prompt]).input_ids.shape[1]
        length = whole.input_ids.shape[1]
        cut = caption_inputs(tokenizer, [prompt], [caption], length - 1)
        assert torch.equal(cut.input_ids, whole.input_ids[:, :-1])
        assert end_of_caption_id(tokenizer) not in cut.targets
        shortest = caption_inputs(tokenizer, [prompt], [caption], head + 1)
        assert int((shortest.targets >= 0).sum()) == 1
        with pytest.raises(ValueError, match=f"prompt alone has {head} tokens"):
            caption_inputs(tokenizer, ["", prompt], [caption, caption], head)

    def test_empty_caption_teaches_to_say_nothing(self, tokenizer) -> None:
        end = end_of_caption_id(tokenizer)
        _, _, targets = caption_inputs(tokenizer, ["a photo of", ""], ["  ", ""], 32)
        assert [row[row >= 0].tolist() for row in targets] == [[end], [end]]

    def test_counts_must_agree(self, tokenizer) -> None:
        with pytest.raises(ValueError, match="1 prompts for 2 captions"):
            caption_inputs(tokenizer, [""], ["a", "b"], 32)

    def test_prompt_inputs_are_the_head_of_training_inputs(self, tokenizer) -> None:
        prompts = ["a photo of ", "", "axial CT of the abdomen:"]
        ids, mask = prompt_inputs(tokenizer, prompts)
        assert (mask[:, -1] == 1).all()
        trained = caption_inputs(tokenizer, prompts, ["a mass"] * 3, 64)
        for row in range(3):
            length = int(mask[row].sum())
            assert mask[row].tolist() == [0] * (len(mask[row]) - length) + [1] * length
            assert torch.equal(ids[row, -length:], trained.input_ids[row, :length])
            assert int((trained.targets[row] >= 0).nonzero()[0]) == length

    def test_decode_drops_special_tokens(self, tokenizer) -> None:
        tokens = tokenizer(" a mass \n", add_special_tokens=False).input_ids
        assert decode_captions(tokenizer, [[2, *tokens, 1], []]) == ["a mass", ""]
