"""The captioner in the place of BLIP-2: LAVIS' own code, unchanged but for the model's name.

The snippets run in fresh interpreters in which nobody imports this package; everything around a
data loader and LAVIS' datasets and tasks runs here.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from environments import Environment
from lavis.common.registry import registry
from lavis.datasets.data_utils import prepare_sample
from lavis.datasets.datasets.caption_datasets import CaptionDataset, CaptionEvalDataset
from lavis.models import load_model, load_model_and_preprocess, model_zoo
from lavis.tasks.captioning import CaptionTask
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.phantom import PhantomSizes, ensure_phantom

SOME = PhantomSizes(
    coco_train=2, coco_val=0, roco_train=0, roco_validation=0, roco_test=6, medicat=0
)
PATIENCE = 120.0  # seconds that loading and the first caption may take on a busy machine

# the README of LAVIS for BLIP-2, but for the name
BLIP2_SNIPPET = """
import time
import torch
from lavis.models import load_model_and_preprocess
from PIL import Image
start = time.perf_counter()
device = "cuda" if torch.cuda.is_available() else "cpu"
model, vis, txt = load_model_and_preprocess("msmedcap", is_eval=True, device=device)
raw_image = Image.open("image.png").convert("RGB")
image = vis["eval"](raw_image).unsqueeze(0).to(device)
loaded = time.perf_counter()
captions = model.generate({"image": image})
end = time.perf_counter()
"""
REPORT = """
import json, sys
print(json.dumps([captions, txt["eval"](captions[0]), loaded - start, end - loaded]))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """Six phantoms of several modalities and shapes, and two everyday scenes, in RGB."""
    root = ensure_phantom(tmp_path_factory.mktemp("pictures"), seed=5, sizes=SOME)
    files = sorted(root.glob("roco/**/*.jpg")) + sorted(root.glob("coco/train2014/*.jpg"))
    return [Image.open(path).convert("RGB") for path in files]


@pytest.fixture(scope="module")
def coco_style(tmp_path_factory: pytest.TempPathFactory, pictures: list[Image.Image]) -> Path:
    """A folder of PNG files and an annotation file as LAVIS' caption datasets read it."""
    folder = tmp_path_factory.mktemp("coco_style")
    annotations = []
    for number, picture in enumerate(pictures):
        name = f"{number}.png"
        # every other one is greyscale, as radiographs are
        (picture.convert("L") if number % 2 else picture).save(folder / name)
        caption = f"Axial CT showing {number} lesions."
        annotations.append({"image": name, "caption": caption, "image_id": 100 + number})
    (folder / "annotations.json").write_text(json.dumps(annotations))
    return folder


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Model, image processors and text processors, on the CPU."""
    model, vis, txt = load_model_and_preprocess("msmedcap", is_eval=True)
    return model, vis, txt


@pytest.fixture(scope="module")
def alone(loaded: Any, pictures: list[Image.Image]) -> list[str]:
    """The caption of each picture, made one by one as the snippet does."""
    model, vis, _ = loaded
    captions = [model.generate({"image": vis["eval"](p).unsqueeze(0)}) for p in pictures]
    assert all(len(caption) == 1 for caption in captions)
    return [caption for (caption,) in captions]


# --- snippets in fresh interpreters ------------------------------------------------------------


def test_the_blip2_snippet_with_another_name(
    plugged_in: Environment,
    tmp_path: Path,
    pictures: list[Image.Image],
    alone: list[str],
    record_property: Any,
) -> None:
    pictures[0].save(tmp_path / "image.png")
    output = plugged_in.output("-c", BLIP2_SNIPPET + REPORT, cwd=tmp_path)
    captions, processed, loading, generating = json.loads(output.splitlines()[-1])
    record_property("seconds_to_load", loading)
    record_property("seconds_to_caption", generating)
    if not torch.cuda.is_available():  # another device may round another way
        assert captions == alone[:1]
    assert len(captions[0].split()) > 1
    assert isinstance(processed, str)
    assert loading + generating < PATIENCE


def test_the_readme_of_lavis_with_another_name(
    plugged_in: Environment, tmp_path: Path, pictures: list[Image.Image], alone: list[str]
) -> None:
    pictures[0].save(tmp_path / "image.png")
    readme = importlib.metadata.distribution("salesforce-lavis").read_text("METADATA") or ""
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (block,) = (b for b in blocks if "blip_caption" in b and 'model.generate({"image"' in b)
    ours = block.replace('name="blip_caption", model_type="base_coco"', 'name="msmedcap"')
    assert ours != block
    lines = textwrap.dedent(ours).replace("model.generate(", "captions = model.generate(")
    opening = "from PIL import Image\nraw_image = Image.open('image.png').convert('RGB')\n"
    output = plugged_in.output("-c", f"{opening}{lines}\nprint(captions[0])", cwd=tmp_path)
    caption = output.splitlines()[-1]
    assert len(caption.split()) > 1
    if not torch.cuda.is_available():
        assert caption == alone[0]


# --- loading -----------------------------------------------------------------------------------


def test_the_model_type_is_optional_and_means_demo(loaded: Any) -> None:
    model, _, _ = loaded
    named, vis, txt = load_model_and_preprocess(name="msmedcap", model_type="demo", is_eval=True)
    assert sorted(vis) == sorted(txt) == ["eval", "train"]
    weights = named.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not named.training
    assert not load_model("msmedcap", is_eval=True).training
    assert load_model("blip2_dual_qformer").training


def test_the_zoo_lists_both_models_and_their_types() -> None:
    zoo = dict(model_zoo)
    assert zoo["msmedcap"] == zoo["blip2_dual_qformer"] == ["demo", "paper", "authors"]
    assert re.search(r"^msmedcap +demo, paper, authors$", str(model_zoo), re.MULTILINE)


@pytest.mark.parametrize("load", [load_model, load_model_and_preprocess])
def test_wrong_names_are_clear_errors(load: Any) -> None:
    with pytest.raises(ConfigError, match="'msmedcpa'; did you mean 'msmedcap'"):
        load("msmedcpa", is_eval=True)
    with pytest.raises(ConfigError, match=r"no model_type 'opt2\.7b'; it has: demo, paper"):
        load("msmedcap", "opt2.7b", is_eval=True)


def test_frozen_parts_have_no_gradient_even_in_training_mode(loaded: Any) -> None:
    model = load_model("msmedcap").train()
    for part in (model.opt_model, model.visual_encoder, model.branches["sam"].encoder):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())
    assert model.Qformer.training


# --- the image tensor --------------------------------------------------------------------------


class Pictures(Dataset):
    """What a user would write for a folder of images."""

    def __init__(self, pictures: list[Image.Image], processor: Any) -> None:
        self.pictures = pictures
        self.processor = processor

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.processor(self.pictures[index]), "image_id": str(index)}


def test_captions_do_not_depend_on_the_company(
    loaded: Any, pictures: list[Image.Image], alone: list[str]
) -> None:
    model, vis, _ = loaded
    batch = default_collate([{"image": vis["eval"](picture)} for picture in pictures])
    assert batch["image"].shape[0] == len(pictures)
    assert model.generate(batch) == alone
    assert len(set(alone)) > 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_data_loader(
    loaded: Any, pictures: list[Image.Image], alone: list[str], workers: int
) -> None:
    model, vis, _ = loaded
    dataset = Pictures(pictures, vis["eval"])
    loader = DataLoader(dataset, batch_size=3, num_workers=workers, pin_memory=False)
    captions = []
    for samples in loader:
        captions += model.generate(prepare_sample(samples, cuda_enabled=False))
    assert captions == alone


def test_the_arguments_of_blip2_generate(loaded: Any, pictures: list[Image.Image]) -> None:
    model, vis, _ = loaded
    samples = {"image": torch.stack([vis["eval"](picture) for picture in pictures[:2]])}
    torch.manual_seed(0)
    sampled = model.generate(samples, use_nucleus_sampling=True, top_p=0.95, temperature=1.2)
    assert len(sampled) == 2
    several = model.generate(samples, num_beams=3, num_captions=3, length_penalty=0.5)
    assert len(several) == 6
    assert len(set(several[:3])) == 3
    short = model.generate({**samples, "prompt": ["a photo of", "an image of"]}, max_length=3)
    assert all(len(caption.split()) <= 3 for caption in short)
    assert model.generate(samples, num_beams=1, min_length=8, repetition_penalty=1.5)


# --- LAVIS' datasets and task ------------------------------------------------------------------


def test_lavis_caption_dataset_trains_both_models(loaded: Any, coco_style: Path) -> None:
    _, vis, txt = loaded
    dataset = CaptionDataset(
        vis["train"], txt["train"], str(coco_style), [str(coco_style / "annotations.json")]
    )
    assert dataset.displ_item(1)["caption"] == "Axial CT showing 1 lesions."
    loader = DataLoader(dataset, batch_size=4, collate_fn=dataset.collater, num_workers=2)
    samples = prepare_sample(next(iter(loader)), cuda_enabled=False)
    assert samples["text_input"][1] == "axial ct showing 1 lesions."
    for name in ("msmedcap", "blip2_dual_qformer"):
        model = load_model(name).train()
        loss = model(samples)["loss"]
        loss.backward()
        trained = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert {f"branches.{branch}.query_tokens" for branch in ("clip", "sam")} <= trained


def test_lavis_captioning_task_evaluates_the_model(
    loaded: Any, coco_style: Path, pictures: list[Image.Image]
) -> None:
    model, vis, txt = loaded
    dataset = CaptionEvalDataset(
        vis["eval"], txt["eval"], str(coco_style), [str(coco_style / "annotations.json")]
    )
    loader = DataLoader(dataset, batch_size=5, collate_fn=dataset.collater)
    task = CaptionTask(num_beams=3, max_len=20, min_len=1, evaluate=True)
    results = task.evaluation(model, loader, cuda_enabled=False)
    assert [result["image_id"] for result in results] == list(range(100, 100 + len(pictures)))
    colour = vis["eval"](pictures[0]).unsqueeze(0)
    (expected,) = model.generate({"image": colour}, num_beams=3, max_length=20)
    assert results[0]["caption"] == expected


# --- images of BLIP-2's own processor ----------------------------------------------------------


def test_images_of_blip2s_processor_are_taken_with_one_warning(
    pictures: list[Image.Image], caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model("msmedcap", is_eval=True)
    processor = registry.get_processor_class("blip_image_eval")(image_size=224)
    samples = {"image": torch.stack([processor(picture) for picture in pictures])}
    assert samples["image"].shape == (len(pictures), 3, 224, 224)
    with caplog.at_level(logging.WARNING):
        captions = model.generate(samples)
        assert model.generate(samples) == captions
    assert all(captions)
    assert len(captions) == len(pictures)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    (warning,) = (record for record in warnings if record.name.startswith("lavis_msmedcap"))
    assert "224 x 224 pixels" in warning.message
    assert "msmedcap_image_eval" in warning.message
