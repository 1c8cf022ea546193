"""The paper's model at full size with random weights: files, loading, a caption, a training step.

python benchmarks/full_size.py make FOLDER                    9 GB of files in the real formats
python benchmarks/full_size.py generate FOLDER                loads them and captions an image
python benchmarks/full_size.py train FOLDER --stage 2         one training step
    --device cuda --batch 8                                   images/s, share of peak, peak memory

The files have names, keys, shapes and types of the published ones (ViT-g, SAM ViT-B, OPT-2.7b,
BERT's vocabulary size), leftovers included; their values are random. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import machine, peak_rss_gib
from PIL import Image
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn

SENTENCES = ["Question: Describe the image. Answer: axial ct of the chest\n", "a photo of a dog\n"]
OPT_SPECIALS = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
# forward GFLOP per image (2 x multiply-add) of the frozen encoders, and of OPT-2.7b per token
GFLOP = {"eva_clip": 521.0, "sam": 972.0, "opt_token": 5.3}
BERT_VOCABULARY, OPT_VOCABULARY = 30522, 50272


# --- make --------------------------------------------------------------------------------------


def fill(shapes: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Makes random tensors of given shapes; norms near one, everything else small."""
    generator = torch.Generator().manual_seed(0)
    tile = torch.randn(1 << 20, generator=generator) * 0.02
    made = {}
    for name, meta in shapes.items():
        flat = tile.repeat(-(-meta.numel() // len(tile)))[: meta.numel()]
        is_scale = meta.dim() == 1 and name.endswith("weight")
        made[name] = (flat.view(meta.shape) + float(is_scale)).to(dtype)
    return made


@contextmanager
def on_meta() -> Iterator[None]:
    """Builds networks without memory."""
    from lavis_msmedcap.models.encoders.eva_clip import PlainNumbersOnCpu

    with torch.device("meta"), PlainNumbersOnCpu():
        yield


def trained_shapes(module: nn.Module) -> dict[str, Tensor]:
    """Returns parameters and buffers by name."""
    return dict(module.state_dict())


def make_encoders(weights: Path) -> None:
    """Writes EVA ViT-g (with the block, norm and head that BLIP-2 leaves out) and a whole SAM."""
    from segment_anything import sam_model_registry

    from lavis_msmedcap.models.encoders.eva_clip import EvaClipEncoder

    with on_meta():
        eva = EvaClipEncoder(depth=40).vit
        sam = sam_model_registry["vit_b"]()
    shapes = trained_shapes(eva)
    shapes |= {"norm.weight": torch.empty(1408), "norm.bias": torch.empty(1408)}
    shapes |= {"head.weight": torch.empty(1024, 1408), "head.bias": torch.empty(1024)}
    torch.save(fill(shapes, torch.float16), weights / "eva_vit_g.pth")
    torch.save(fill(trained_shapes(sam), torch.float32), weights / "sam_vit_b_01ec64.pth")


def make_qformer_files(weights: Path) -> None:
    """Writes a BLIP-2 stage-1 checkpoint, BERT, and BERT's vocabulary of made-up words."""
    from safetensors.torch import save_file
    from transformers import BertConfig, BertForPreTraining

    from lavis_msmedcap.models.branch import QFormerSize, build_qformer

    with on_meta():
        qformer = build_qformer(QFormerSize(), encoder_width=1408, num_query_token=32)
        bert = BertForPreTraining(BertConfig())
    shapes = {f"Qformer.{name}": value for name, value in trained_shapes(qformer).items()}
    shapes |= {"query_tokens": torch.empty(1, 32, 768), "temp": torch.empty(())}
    for name, rows in (("vision_proj", 256), ("text_proj", 256), ("itm_head", 2)):
        shapes |= {f"{name}.weight": torch.empty(rows, 768), f"{name}.bias": torch.empty(rows)}
    shapes |= {f"ln_vision.{name}": torch.empty(1408) for name in ("weight", "bias")}
    tensors = fill(shapes, torch.float32)
    tensors["temp"] = torch.tensor(0.07)
    torch.save({"model": tensors}, weights / "blip2_pretrained.pth")
    folder = weights / "bert-base-uncased"
    folder.mkdir(exist_ok=True)
    tensors = fill(trained_shapes(bert), torch.float32)
    tensors = {name: value for name, value in tensors.items() if "decoder" not in name}
    save_file(tensors, folder / "model.safetensors")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(97, 123)] + [f"##{chr(code)}" for code in range(97, 123)]
    words = [f"word{i}" for i in range(BERT_VOCABULARY - len(specials) - len(letters))]
    (folder / "vocab.txt").write_text("\n".join([*specials, *letters, *words]) + "\n")


def make_tokenizer(folder: Path) -> None:
    """Writes a tokenizer of a few real and many made-up words: random weights may choose any."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        SENTENCES, vocab_size=320, special_tokens=["<s>", "<pad>", "</s>", "<unk>"]
    )
    tokenizer.save_model(str(folder))
    words = json.loads((folder / "vocab.json").read_text())
    words |= {f"\u0120word{number}": number for number in range(len(words), OPT_VOCABULARY)}
    (folder / "vocab.json").write_text(json.dumps(words))
    settings = {**OPT_SPECIALS, "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def make_opt(weights: Path) -> None:
    """Writes OPT-2.7b in float16 as the release does."""
    from lavis_msmedcap.models.opt import build_opt, published_opt

    config = {**published_opt("opt-2.7b"), "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
    with on_meta():
        model = build_opt(config)
    folder = weights / "opt-2.7b"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    make_tokenizer(folder)
    shapes = {name: v for name, v in trained_shapes(model).items() if name != "lm_head.weight"}
    torch.save(fill(shapes, torch.float16), folder / "pytorch_model.bin")


def make(folder: Path) -> None:
    """Writes all files."""
    weights = folder / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    for step in (make_encoders, make_qformer_files, make_opt):
        started = time.perf_counter()
        step(weights)
        print(f"{step.__name__}: {time.perf_counter() - started:.0f} s", flush=True)
    size = sum(path.stat().st_size for path in weights.rglob("*") if path.is_file())
    print(f"{size / 2**30:.1f} GiB in {weights}")


# --- run ---------------------------------------------------------------------------------------


def build(stage: int, device: str, precision: str) -> Any:
    """Builds the paper's model from the files below ``weights/`` of the current directory."""
    from lavis.common.registry import registry
    from omegaconf import OmegaConf

    arch = {1: "blip2_dual_qformer", 2: "msmedcap"}[stage]
    cls = registry.get_model_class(arch)
    config = OmegaConf.load(cls.default_config_path("paper")).model
    config.load_finetuned = False
    for branch in config.branches.values():
        branch.encoder.precision = precision
    if stage == 2:
        config.llm.precision = precision
    return cls.from_config(config).to(device)


def make_samples(batch: int, device: str) -> dict[str, Any]:
    """Makes a batch of random pictures through our own processor."""
    from lavis.common.registry import registry

    processor = registry.get_processor_class("msmedcap_image_eval")(
        image_size=224, sam_image_size=1024
    )
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)) for _ in range(batch)
    ]
    image = torch.stack([processor(picture) for picture in pictures]).to(device)
    return {"image": image, "text_input": ["axial ct of the chest"] * batch}


def generate(arguments: argparse.Namespace) -> None:
    """Loads the captioner and writes a caption; prints seconds and peak memory."""
    started = time.perf_counter()
    model = build(2, arguments.device, arguments.precision).eval()
    loaded = time.perf_counter()
    samples = make_samples(1, arguments.device)
    caption = model.generate(samples, num_beams=arguments.beams, max_length=8, min_length=1)
    done = time.perf_counter()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{machine()}; {arguments.precision}, {parameters / 1e9:.2f} G parameters")
    print(f"loaded in {loaded - started:.0f} s, caption of 8 tokens in {done - loaded:.1f} s")
    print(f"caption (random weights): {caption[0]!r}")
    print(f"peak resident memory: {peak_rss_gib():.1f} GiB")


def train(arguments: argparse.Namespace) -> None:
    """Makes training steps; prints images/s, share of peak and peak memory."""
    model = build(arguments.stage, arguments.device, arguments.precision).train()
    samples = make_samples(arguments.batch, arguments.device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    cuda = arguments.device.startswith("cuda")
    seconds = []
    for _ in range(arguments.steps + 1):  # the first one warms up
        started = time.perf_counter()
        with torch.autocast(arguments.device.split(":")[0], torch.bfloat16):
            loss = model(samples)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    best = sorted(seconds[1:])[len(seconds[1:]) // 2]
    gflop = GFLOP["eva_clip"] + GFLOP["sam"]
    gflop += 2 * 97 * GFLOP["opt_token"] if arguments.stage == 2 else 0.0
    print(f"{time.strftime('%Y-%m-%d')}; {machine()}; stage {arguments.stage}, loss {loss:.3f}")
    print(f"{arguments.batch / best:.2f} images/s at batch {arguments.batch}, median of the steps")
    tera = gflop * arguments.batch / best / 1000
    print(f"frozen parts alone: {tera:.1f} TFLOP/s ({tera / arguments.peak:.1%} of the peak)")
    memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else peak_rss_gib()
    print(f"peak memory: {memory:.1f} GiB")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("make", "generate", "train"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp16", "fp32"))
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--stage", type=int, default=2, choices=(1, 2))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--peak", type=float, default=790.0, help="TFLOP/s of the device in bf16")
    arguments = parser.parse_args()
    if arguments.action == "make":
        make(arguments.folder)
        return
    os.chdir(arguments.folder)
    {"generate": generate, "train": train}[arguments.action](arguments)


if __name__ == "__main__":
    main()
