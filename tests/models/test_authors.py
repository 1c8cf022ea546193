"""The authors' compatibility mode in both models, at tiny sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import TEXTS
from torch import Tensor

from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.imaging.authors_view import authors_sam_view
from lavis_msmedcap.imaging.views import normalize_clip, unpack_views
from lavis_msmedcap.models.base import DualBranchModel
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.run_sources import read_yaml


def as_authors(settings: dict[str, Any]) -> dict[str, Any]:
    settings["model_type"] = "authors"
    settings["branches"]["sam"]["encoder"].update(tokens="channel", input="authors")
    settings["branches"]["clip"]["encoder"]["freeze_ln"] = False
    return settings


@pytest.fixture(params=[Blip2DualQformer, MSMedCap])
def model(request: Any, stage1_settings: Any, stage2_settings: Any) -> DualBranchModel:
    settings = stage1_settings if request.param is Blip2DualQformer else stage2_settings
    torch.manual_seed(0)
    return request.param.from_config(as_authors(settings)).eval()


def test_sam_sees_what_the_authors_code_makes_of_the_clip_view(
    model: DualBranchModel, packed_images: Tensor
) -> None:
    clip = normalize_clip(unpack_views(packed_images).clip)
    expected = model.branch("sam").encoder(*authors_sam_view(clip, 32)).embeds
    embeds = model.encode_image(packed_images)["sam"]
    assert torch.equal(embeds.embeds, expected)
    assert embeds.embeds.shape == (5, 16, 16)  # 16 channels of 4 x 4
    assert embeds.atts.all()
    # an image that LAVIS' processors have normalised is the same to it
    assert torch.equal(model.encode_image(clip)["sam"].embeds, expected)


def test_it_trains_with_the_layer_norm(model: DualBranchModel, packed_images: Tensor) -> None:
    output = model.train()({"image": packed_images, "text_input": TEXTS})
    output["loss"].backward()
    assert model.branch("clip").encoder.ln.weight.grad.abs().sum() > 0
    assert "clip.encoder" in model.audit_trainable()


def test_one_warning_at_build_and_none_for_normalised_images(
    stage1_settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = Blip2DualQformer.from_config(as_authors(stage1_settings))
    model.encode_image(torch.randn(2, 3, 16, 16))
    warnings = [record.message for record in caplog.records if "authors" in record.message]
    assert len(warnings) == 1
    assert "NOT the picture" in warnings[0]
    assert "without the detail" not in caplog.text


def test_the_raw_input_is_the_default(stage1_settings: dict[str, Any]) -> None:
    model = Blip2DualQformer.from_config(stage1_settings)
    assert model.branch("sam").encoder.input == "raw"


@pytest.mark.parametrize(
    ("cls", "files"),
    [
        (Blip2DualQformer, {"blip2_pretrained.pth", "model.safetensors"}),
        (MSMedCap, {"blip2_pretrained.pth", "opt-2.7b", "msmedcap_authors"}),
    ],
)
def test_missing_inputs_list_the_files(
    cls: Any, files: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_yaml(Path(cls.default_config_path("authors")))["model"]
    problems = "\n".join(cls.missing_inputs(settings))
    for file in files | {"eva_vit_g.pth", "sam_vit_b_01ec64.pth", "bert-base-uncased"}:
        assert file in problems, file


def test_the_packaged_files_describe_the_authors_network() -> None:
    stage1, stage2 = (
        read_yaml(package_path(f"configs/models/{arch}_authors.yaml"))
        for arch in ("blip2_dual_qformer", "msmedcap")
    )
    for settings in (stage1, stage2):
        branches = settings["model"]["branches"]
        assert [part["num_query_token"] for part in branches.values()] == [32, 32]
        assert branches["clip"]["encoder"]["freeze_ln"] is False
        sam = branches["sam"]["encoder"]
        assert (sam["tokens"], sam["input"], sam["size"]) == ("channel", "authors", "vit_b")
    sizes = [s["model"]["branches"]["clip"]["encoder"].pop("image_size") for s in (stage1, stage2)]
    assert sizes == [224, 364]  # stage 1 trains, the captioner evaluates
    assert stage1["model"]["branches"] == stage2["model"]["branches"]
    assert stage1["model"]["qformer"] == stage2["model"]["qformer"]
    assert stage2["model"]["prompt"] == "Question: Describe the image. Answer:"


def test_the_processors_of_both_packages_show_it_the_same(packed_images: Tensor) -> None:
    """Our packed CLIP view, normalised, is what LAVIS' processor hands to the model.

    Within two grey levels of a few values, in which resizing rounds otherwise (`views.resize`).
    """
    from lavis.processors.blip_processors import BlipImageEvalProcessor

    from lavis_msmedcap.processors.image_processors import MSMedCapImageEvalProcessor

    pixels = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    packed = MSMedCapImageEvalProcessor(image_size=36, sam_image_size=64)(picture)
    ours = normalize_clip(unpack_views(packed).clip)[0]
    off = (ours - BlipImageEvalProcessor(image_size=36)(picture)).abs() * 255 * 0.27
    assert off.max() < 2.1
    assert (off > 0).float().mean() < 0.01
