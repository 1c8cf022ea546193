"""What `generate` and its relatives say about arguments and inputs that cannot work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lavis_msmedcap.common.errors import ArgumentError, DataError, NotFiniteOutputError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.logits import refuse_nonfinite
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.tasks.medical_captioning import Decoding, MedicalCaptioningTask


@pytest.fixture
def captioner(stage2_settings: dict[str, Any]) -> MSMedCap:
    return MSMedCap.from_config(stage2_settings).eval()


@pytest.fixture
def pretrained(stage1_settings: dict[str, Any]) -> Blip2DualQformer:
    return Blip2DualQformer.from_config(stage1_settings).eval()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_length": 0}, "^max_length is 0; expected a whole number, at least 1"),
        ({"max_length": 2.5}, "^max_length is 2.5; expected a whole number"),
        ({"num_captions": 0}, "^num_captions is 0"),
        ({"num_captions": 7}, "^num_captions is 7 with num_beams 5"),
        ({"min_length": 99}, "^min_length is 99.*raise max_length, or lower min_length"),
        ({"max_length": 10**5}, r"lower max_length to at most \d+, or shorten samples\['prompt'\]"),
        ({"repetition_penalty": 0.0}, "^repetition_penalty is 0.0; expected a number above 0"),
        ({"repetition_penalty": -1.0}, "^repetition_penalty is -1.0"),
        ({"repetition_penalty": float("nan")}, "^repetition_penalty is nan"),
        ({"length_penalty": 500.0}, r"^length_penalty is 500.0; .* expected between -\d+ and \d+"),
        ({"length_penalty": float("nan")}, "^length_penalty is nan"),
        ({"use_nucleus_sampling": True, "temperature": float("nan")}, "^temperature is nan"),
    ],
)
def test_a_captioner_names_its_own_arguments(
    captioner: MSMedCap, packed_images: Tensor, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        captioner.generate({"image": packed_images}, **arguments)
    assert "max_new_tokens" not in str(caught.value)
    assert "num_return_sequences" not in str(caught.value)


def test_the_largest_length_that_is_advised_works(
    captioner: MSMedCap, packed_images: Tensor
) -> None:
    with pytest.raises(ArgumentError) as caught:
        captioner.generate({"image": packed_images}, max_length=10**5)
    room = int(str(caught.value).split("at most ")[1].split(",")[0])
    assert len(captioner.generate({"image": packed_images[:1]}, max_length=room)) == 1
    with pytest.raises(ArgumentError, match=f"to at most {room},"):
        captioner.generate({"image": packed_images}, max_length=room + 1)


def test_both_ends_of_the_length_penalty_work(captioner: MSMedCap, packed_images: Tensor) -> None:
    with pytest.raises(ArgumentError) as caught:
        captioner.generate({"image": packed_images}, length_penalty=1e9)
    limit = int(str(caught.value).rsplit(" ", 1)[1])
    for penalty in (limit - 1.0, 1.0 - limit):
        assert all(captioner.generate({"image": packed_images}, length_penalty=penalty))


def test_a_prompt_that_is_too_long_is_to_be_shortened(
    captioner: MSMedCap, packed_images: Tensor
) -> None:
    samples = {"image": packed_images, "prompt": "a photo of " * 500}
    with pytest.raises(ArgumentError, match=r"shorten samples\['prompt'\] to fewer than \d+ tok"):
        captioner.generate(samples)


@pytest.mark.parametrize(
    ("question", "arguments", "message"),
    [
        ("what?", {"max_len": 0}, "^max_len is 0"),
        ("what?", {"min_len": 99}, "^min_len is 99.* raise max_len, or lower min_len"),
        ("what " * 999, {}, "shorten the question to fewer"),
        (
            "what " * 999,
            {"inference_method": "rank", "answer_list": ["hand"]},
            "shorten the question to fewer",
        ),
        (
            "what?",
            {"inference_method": "rank", "answer_list": ["hand " * 999]},
            "shorten the answers to at most",
        ),
    ],
)
def test_predict_answers_names_its_own(
    captioner: MSMedCap,
    packed_images: Tensor,
    question: str,
    arguments: dict[str, Any],
    message: str,
) -> None:
    samples = {"image": packed_images, "text_input": [question] * len(packed_images)}
    with pytest.raises(ArgumentError, match=message):
        captioner.predict_answers(samples, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_length": 1}, r"^max_length is 1; expected at least 2, because \[DEC\] counts"),
        ({"max_length": 10**4}, r"^max_length is 10000; .* at most \d+, the positions"),
        ({"min_length": 40}, "^min_length is 40.*raise max_length"),
        ({"repetition_penalty": 0.0}, "^repetition_penalty is 0.0"),
    ],
)
def test_a_qformer_names_its_own(
    pretrained: Blip2DualQformer, packed_images: Tensor, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        pretrained.generate({"image": packed_images}, **arguments)


def test_a_qformer_writes_up_to_its_last_position(
    pretrained: Blip2DualQformer, packed_images: Tensor
) -> None:
    last = pretrained.branch("clip").qformer.config.max_position_embeddings
    samples = {"image": packed_images[:1]}
    written = pretrained.generate(samples, num_beams=1, max_length=last, min_length=last)
    assert len(written[0].split()) > last // 3
    with pytest.raises(ArgumentError, match=f"at most {last}, the positions"):
        pretrained.generate(samples, max_length=last + 1)


def run_samples(image: Tensor) -> dict[str, Any]:
    count = len(image)
    return {
        "image": image,
        "image_id": [f"id_{i}" for i in range(count)],
        "dataset": ["roco"] * count,
        "references": [["a"]] * count,
        "image_path": [f"/data/{i}.png" for i in range(count)],
    }


def test_a_run_names_its_keys(captioner: MSMedCap, packed_images: Tensor) -> None:
    task = MedicalCaptioningTask(Decoding(max_length=10**5))
    with pytest.raises(ArgumentError, match=r"lower run\.max_len to .*, or shorten model\.prompt"):
        task.valid_step(captioner, run_samples(packed_images))
    task = MedicalCaptioningTask(Decoding(min_length=99))
    with pytest.raises(ArgumentError, match=r"^run\.min_len is 99.* raise run\.max_len"):
        task.valid_step(captioner, run_samples(packed_images))


class TestNotFinite:
    @pytest.fixture
    def image(self) -> Tensor:
        image = torch.zeros(3, 3, 20, 20)
        image[1] = float("nan")
        return image

    @pytest.mark.parametrize("beams", [1, 3])
    def test_the_image_is_named(self, captioner: MSMedCap, image: Tensor, beams: int) -> None:
        with pytest.raises(NotFiniteOutputError, match=r"^image 1 of the batch") as caught:
            captioner.generate({"image": image}, num_beams=beams)
        assert caught.value.images == [1]
        assert len(captioner.generate({"image": image[[0, 2]]}, num_beams=beams)) == 2

    def test_also_among_several_samples_of_each(self, captioner: MSMedCap, image: Tensor) -> None:
        with pytest.raises(NotFiniteOutputError, match=r"^image 1 of"):
            captioner.generate({"image": image}, use_nucleus_sampling=True, num_captions=4)

    def test_also_where_answers_are_ranked(self, captioner: MSMedCap, image: Tensor) -> None:
        samples = {"image": image, "text_input": ["what?"] * 3}
        with pytest.raises(NotFiniteOutputError, match=r"^image 1 of"):
            captioner.predict_answers(samples, inference_method="rank", answer_list=["hand", "ct"])

    def test_also_in_stage_1(self, pretrained: Blip2DualQformer, image: Tensor) -> None:
        with pytest.raises(NotFiniteOutputError, match=r"^image 1 of"):
            pretrained.generate({"image": image})

    def test_a_run_names_the_file(self, captioner: MSMedCap, image: Tensor) -> None:
        with pytest.raises(NotFiniteOutputError, match=r"^image /data/1\.png: "):
            MedicalCaptioningTask().valid_step(captioner, run_samples(image))


def test_an_empty_batch_has_no_captions(
    captioner: MSMedCap, pretrained: Blip2DualQformer, packed_images: Tensor
) -> None:
    for image in (packed_images[:0], torch.zeros(0, 3, 20, 20)):
        assert captioner.generate({"image": image}, num_captions=2) == []
        assert captioner.generate({"image": image, "prompt": []}) == []
        assert pretrained.generate({"image": image}) == []
        samples = {"image": image, "text_input": []}
        assert captioner.predict_answers(samples) == []
        ranked = {"inference_method": "rank", "answer_list": ["hand"]}
        assert captioner.predict_answers(samples, **ranked) == []
    with pytest.raises(DataError, match="the batch of packed views is empty"):
        captioner.encode_image(packed_images[:0])


PICTURE = Image.new("RGB", (8, 8))
WRONG = [(PICTURE, "Image"), ([PICTURE], "list"), (np.zeros((8, 8, 3), np.uint8), "ndarray")]


@pytest.mark.parametrize(("image", "kind"), WRONG)
def test_images_must_be_tensors(
    captioner: MSMedCap, pretrained: Blip2DualQformer, image: Any, kind: str
) -> None:
    message = rf"^image is of type {kind}; expected .*vis\['eval'\]\(picture\)\.unsqueeze\(0\)"
    samples = {"image": image, "text_input": ["a"]}
    calls = [captioner.generate, captioner.predict_answers, captioner]
    calls += [pretrained.generate, pretrained.extract_features, pretrained.match, pretrained]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(samples)
    with pytest.raises(ValueError, match=message):
        captioner.encode_image(image)


def test_images_need_a_batch_axis(captioner: MSMedCap, packed_images: Tensor) -> None:
    for image in (packed_images[0], torch.zeros(3, 20, 20)):
        with pytest.raises(ValueError, match=r"^image has shape .*unsqueeze\(0\)"):
            captioner.generate({"image": image})


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({}, r"^generate needs samples\['image'\], the packed views of .*unsqueeze\(0\)"),
        ({"image": None}, r"^generate needs samples\['image'\]"),
        (torch.zeros(1, 3, 20, 20), r"^generate needs samples, a dictionary .* got Tensor; "),
    ],
)
def test_samples_must_hold_an_image(
    captioner: MSMedCap, pretrained: Blip2DualQformer, samples: Any, message: str
) -> None:
    for model in (captioner, pretrained):
        with pytest.raises(ValueError, match=message):
            model.generate(samples)


def test_training_samples_without_text(
    captioner: MSMedCap, pretrained: Blip2DualQformer, packed_images: Tensor
) -> None:
    for model in (captioner, pretrained):
        with pytest.raises(ValueError, match=r"^training needs samples\['text_input'\]$"):
            model({"image": packed_images})


def test_no_prompt_is_the_models_own(captioner: MSMedCap, packed_images: Tensor) -> None:
    own = captioner.generate({"image": packed_images})
    assert captioner.generate({"image": packed_images, "prompt": None}) == own
    texts = ["a lesion"] * len(packed_images)
    samples = {"image": packed_images, "text_input": texts}
    assert torch.equal(captioner({**samples, "prompt": None})["loss"], captioner(samples)["loss"])


def test_logits_may_forbid_tokens_but_not_all() -> None:
    never = float("-inf")
    refuse_nonfinite(torch.tensor([[never, 0.0], [1.0, 2.0]]))
    for row in ([never, never], [float("nan"), 0.0], [float("inf"), 0.0]):
        with pytest.raises(NotFiniteOutputError) as caught:
            refuse_nonfinite(torch.tensor([[0.0, 0.0], [0.0, 0.0], row, row]), copies=2)
        assert caught.value.images == [1]
