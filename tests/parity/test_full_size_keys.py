"""Names and shapes of every model type at full size, against LAVIS and segment-anything.

Everything is built on the meta device, which keeps shapes without memory, so nothing is read,
computed or downloaded. LAVIS' constructors want weights files and Hugging Face's hub; those calls
are given an empty file, BERT-base's own configuration, and local vocabularies. Parameter counts are
printed (``pytest -rP``).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from lavis.models import clip_vit, eva_vit
from lavis.models.blip2_models import blip2, blip2_opt, blip2_qformer
from lavis.models.blip2_models.modeling_opt import OPTConfig, OPTForCausalLM
from lavis.models.blip2_models.Qformer import BertConfig, BertLMHeadModel
from segment_anything import sam_model_registry
from torch import nn

from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.models.base import DualBranchModel
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.build import build_branch, qformer_size
from lavis_msmedcap.models.encoders.eva_clip import PlainNumbersOnCpu
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.models.opt import build_opt, load_opt_tokenizer
from lavis_msmedcap.run_sources import read_yaml

pytestmark = pytest.mark.parity

VOCABULARY = 30522  # of bert-base-uncased, without [DEC]
# the published config.json; what is left out is alike in all of them
OPT = {
    "125m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "1.3b": {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32},
    "2.7b": {"hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32},
    "6.7b": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32},
}
OPT_PARAMETERS = {
    "125m": 125_239_296,
    "1.3b": 1_315_758_080,
    "2.7b": 2_651_596_800,
    "6.7b": 6_658_473_984,
}
# model type and the encoder keys that differ from its packaged file
TYPES: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "demo": ("demo", {}),
    "paper": ("paper", {}),
    "authors": ("authors", {}),
    "paper, clip_l": ("paper", {"clip": {"name": "clip_l"}}),
    "paper, vit_l": ("paper", {"sam": {"size": "vit_l"}}),
    "paper, vit_h": ("paper", {"sam": {"size": "vit_h"}}),
}
Shapes = dict[str, tuple[int, ...]]


def shapes(module: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def opt_config(size: str) -> dict[str, Any]:
    sizes = OPT[size]
    return {
        **sizes,
        "ffn_dim": 4 * sizes["hidden_size"],
        "word_embed_proj_dim": sizes["hidden_size"],
        "vocab_size": 50272,
        "max_position_embeddings": 2048,
        "do_layer_norm_before": True,
    }


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with as many word pieces as bert-base-uncased has."""
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"word{number}" for number in range(VOCABULARY - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words))
    return folder


def settings_of(arch: str, name: str, vocabulary: Path) -> dict[str, Any]:
    """A packaged file without its weights, with the changes that ``TYPES`` names."""
    model_type, changes = TYPES[name]
    settings = read_yaml(package_path(f"configs/models/{arch}_{model_type}.yaml"))["model"]
    for branch, part in settings["branches"].items():
        part["init"] = "scratch"
        part["encoder"].update(weights=None, **changes.get(branch, {}))
    if model_type != "demo":
        settings["qformer"]["tokenizer"] = str(vocabulary)
    return settings


@pytest.fixture(scope="module")
def stage1(vocabulary: Path) -> Callable[[str], Blip2DualQformer]:
    @functools.lru_cache
    def build(name: str) -> Blip2DualQformer:
        settings = settings_of("blip2_dual_qformer", name, vocabulary)
        with torch.device("meta"):
            return Blip2DualQformer.from_config(settings)

    return build


@pytest.fixture(scope="module")
def stage2(vocabulary: Path, tiny_assets: Path) -> Callable[[str], MSMedCap]:
    """Does what ``from_config`` does, but for reading the LLM, which has no shapes-only form."""
    with torch.device("meta"):
        opt_model = build_opt(opt_config("2.7b")).requires_grad_(False)
    tokenizer = load_opt_tokenizer(tiny_assets / "opt")

    @functools.lru_cache
    def build(name: str) -> MSMedCap:
        settings = settings_of("msmedcap", name, vocabulary)
        size = qformer_size(settings["qformer"], VOCABULARY + 1)
        with torch.device("meta"):
            branches = {
                branch: build_branch(branch, part, size, embed_dim=None, llm_width=2560)
                for branch, part in settings["branches"].items()
            }
            return MSMedCap(branches, opt_model, tokenizer, settings=settings)

    return build


@pytest.fixture
def lavis_offline(
    monkeypatch: pytest.MonkeyPatch, vocabulary: Path, tiny_assets: Path, tmp_path: Path
) -> None:
    """Lets LAVIS' own constructors run without a download."""
    nothing = tmp_path / "nothing.pth"
    torch.save({}, nothing)
    for module in (eva_vit, clip_vit):
        monkeypatch.setattr(module, "download_cached_file", lambda *_, **__: nothing)
    bert = transformers.BertTokenizer(str(vocabulary / "vocab.txt"))
    opt = load_opt_tokenizer(tiny_assets / "opt")
    answers: list[tuple[Any, Callable[..., Any]]] = [
        (blip2.BertTokenizer, lambda *_, **__: bert),
        (blip2.BertConfig, lambda *_, **__: BertConfig()),  # its defaults are bert-base-uncased
        (blip2.BertLMHeadModel, lambda _, config: BertLMHeadModel(config)),
        (blip2_opt.AutoTokenizer, lambda *_, **__: opt),
        (
            blip2_opt.OPTForCausalLM,
            lambda *_, **__: OPTForCausalLM(OPTConfig(**opt_config("2.7b"))),
        ),
    ]
    for cls, answer in answers:
        monkeypatch.setattr(cls, "from_pretrained", answer)


def build_lavis(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"), PlainNumbersOnCpu():
        return build()


def under_our_names(theirs: Shapes, projection: str = "") -> Shapes:
    """BLIP-2's names as those of a branch."""
    prefixes = {
        "visual_encoder.": "encoder.vit.",
        "ln_vision.": "encoder.ln.",
        "Qformer.": "qformer.",
        f"{projection}.": "llm_proj.",
    }
    renamed = {}
    for name, shape in theirs.items():
        old = next((old for old in prefixes if name.startswith(old)), "")
        renamed[prefixes.get(old, "") + name[len(old) :]] = shape
    return renamed


# --- encoders ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "create", "millions"),
    [("paper", eva_vit.create_eva_vit_g, 986), ("paper, clip_l", clip_vit.create_clip_vit_L, 265)],
)
def test_clip_encoders_equal_lavis(
    name: str, create: Any, millions: int, stage1: Any, lavis_offline: None
) -> None:
    theirs = build_lavis(lambda: create(img_size=224, precision="fp32"))
    ours = stage1(name).branch("clip").encoder
    assert shapes(ours.vit) == shapes(theirs)
    tell(f"{name}: CLIP encoder {count(ours.vit):,} parameters")
    assert round(count(ours.vit) / 1e6) == millions


@pytest.mark.parametrize(
    ("name", "size", "millions"),
    [("paper", "vit_b", 90), ("paper, vit_l", "vit_l", 308), ("paper, vit_h", "vit_h", 637)],
)
def test_sam_encoders_equal_segment_anything(
    name: str, size: str, millions: int, stage1: Any
) -> None:
    with torch.device("meta"):
        theirs = sam_model_registry[size]().image_encoder
    ours = stage1(name).branch("sam").encoder
    assert shapes(ours.vit) == shapes(theirs)
    tell(f"{name}: SAM encoder {count(ours.vit):,} parameters")
    assert round(count(ours.vit) / 1e6) == millions


# --- whole models --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paper", "authors", "paper, clip_l"])
def test_stage_1_equals_blip2_qformer(name: str, stage1: Any, lavis_offline: None) -> None:
    model = "clip_L" if name.endswith("clip_l") else "eva_clip_g"
    theirs = build_lavis(
        lambda: blip2_qformer.Blip2Qformer(vit_model=model, vit_precision="fp32", img_size=224)
    )
    clip = stage1(name).branch("clip")
    assert shapes(clip) == under_our_names(shapes(theirs))
    assert count(clip.qformer) == count(theirs.Qformer)
    tell(f"{name}: CLIP Q-Former {count(clip.qformer):,} parameters")
    if model == "eva_clip_g":  # BLIP-2's paper: 188 M
        assert 185e6 < count(clip.qformer) < 190e6


@pytest.mark.parametrize("name", ["paper", "authors"])
def test_the_sam_q_former_differs_in_the_width_of_its_image_tokens_only(
    name: str, stage1: Any
) -> None:
    model = stage1(name)
    clip, sam = shapes(model.branch("clip").qformer), shapes(model.branch("sam").qformer)
    assert clip.keys() == sam.keys()
    differing = {key for key in clip if clip[key] != sam[key]}
    assert len(differing) == 12  # keys and values of six cross-attentions
    width = {"paper": 256, "authors": 4096}[name]
    assert {sam[key] for key in differing} == {(768, width)}
    assert all("crossattention.self." in key for key in differing)
    assert model.branch("sam").query_tokens.shape == (1, 32, 768)


@pytest.mark.parametrize("name", ["paper", "authors"])
def test_stage_2_equals_blip2_opt(name: str, stage2: Any, lavis_offline: None) -> None:
    side = 364 if name == "authors" else 224
    theirs = build_lavis(lambda: blip2_opt.Blip2OPT(vit_precision="fp32", img_size=side))
    ours = stage2(name)
    named = under_our_names(shapes(theirs), "opt_proj")
    assert shapes(ours.branch("clip")) == {
        key: shape for key, shape in named.items() if not key.startswith("opt_model.")
    }
    assert shapes(ours.opt_model) == {
        key[len("opt_model.") :]: shape for key, shape in named.items() if "opt_model." in key
    }


@pytest.mark.parametrize("size", OPT)
def test_opt_equals_hugging_face_and_has_the_published_count(size: str) -> None:
    with torch.device("meta"):
        ours = build_opt(opt_config(size))
        lavis = OPTForCausalLM(OPTConfig(**opt_config(size)))
        hub = transformers.OPTForCausalLM(transformers.OPTConfig(**opt_config(size)))
    assert shapes(ours) == shapes(lavis) == shapes(hub)
    tell(f"OPT-{size}: {count(ours):,} parameters")
    assert count(ours) == OPT_PARAMETERS[size]


# --- what trains ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TYPES)
def test_only_q_formers_queries_and_linears_train(name: str, stage1: Any, stage2: Any) -> None:
    heads = ["qformer", "query_tokens", "vision_proj", "text_proj", "itm_head", "temp"]
    norm = ["encoder"] if name == "authors" else []  # freeze_ln: false
    check_trainable(stage1(name), {"clip": [*norm, *heads], "sam": heads})
    heads = ["qformer", "query_tokens", "llm_proj"]
    model = stage2(name)
    check_trainable(model, {"clip": [*norm, *heads], "sam": heads})


def check_trainable(model: DualBranchModel, parts: dict[str, list[str]]) -> None:
    counts = model.audit_trainable()
    assert set(counts) == {f"{branch}.{part}" for branch, names in parts.items() for part in names}
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    if "encoder" in parts["clip"]:
        assert counts["clip.encoder"] == 2 * model.branch("clip").encoder.width
    tell(model.describe_trainable())
