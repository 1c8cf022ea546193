"""Answering questions: both inference methods, and LAVIS' own VQA task."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lavis.common.registry import registry
from lavis.datasets.datasets.coco_vqa_datasets import COCOVQAEvalDataset
from lavis.tasks.vqa import VQATask
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from lavis_msmedcap.common.errors import MSMedCapError
from lavis_msmedcap.models import lemmas
from lavis_msmedcap.models.answers import format_questions
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.processors.image_processors import MSMedCapImageEvalProcessor

PROMPT = "Question: {} Short answer:"
QUESTIONS = ["what is it?", "which side is the lesion on, left or right?", "how many", "ct", "lobe"]
# none that LAVIS' score rewrites ("two" becomes "2", articles go)
ANSWERS = ["left", "right upper lobe", "round lesion", "hand", "red circles", "blue square"]


@pytest.fixture
def model(stage2_settings: dict[str, Any]) -> MSMedCap:
    torch.manual_seed(1)
    return MSMedCap.from_config(stage2_settings).eval()


@pytest.fixture
def samples(packed_images: Tensor) -> dict[str, Any]:
    return {"image": packed_images, "text_input": QUESTIONS}


def test_generated_answers_are_captions_after_the_question(
    model: MSMedCap, samples: dict[str, Any], packed_images: Tensor
) -> None:
    answers = model.predict_answers(samples, prompt=PROMPT, max_len=6)
    for image, question, answer in zip(packed_images, QUESTIONS, answers):
        prompted = {"image": image[None], "prompt": f"Question: {question} Short answer:"}
        assert model.generate(prompted, max_length=6, length_penalty=0.0) == [answer]
        alone = {"image": image[None], "text_input": question}
        assert model.predict_answers(alone, prompt=PROMPT, max_len=6) == [answer]
    assert len(set(answers)) > 1
    assert model.predict_answers(samples, max_len=6) != answers  # the bare questions


@pytest.mark.parametrize("candidates", [1, 3, 128])
def test_ranked_answers_have_the_smallest_loss(
    model: MSMedCap, samples: dict[str, Any], packed_images: Tensor, candidates: int
) -> None:
    answers = model.predict_answers(
        samples,
        inference_method="rank",
        answer_list=ANSWERS,
        num_ans_candidates=candidates,
        prompt=PROMPT,
    )
    for image, question, answer in zip(packed_images, QUESTIONS, answers):
        prompt = f"Question: {question} Short answer:"
        log_probability, first = zip(*(_loss(model, image, prompt, text) for text in ANSWERS))
        kept = torch.tensor(first).topk(min(candidates, len(ANSWERS))).indices.tolist()
        assert answer == max(
            (ANSWERS[i] for i in kept), key=dict(zip(ANSWERS, log_probability)).get
        )


def _loss(model: MSMedCap, image: Tensor, prompt: str, answer: str) -> tuple[float, float]:
    """Returns the log-probability of an answer and of its first token, by the training loss."""
    ids = model.opt_tokenizer(f" {answer}\n", add_special_tokens=False).input_ids
    sample = {"image": image[None], "prompt": prompt, "text_input": [answer]}
    with torch.no_grad():
        whole = -float(model(sample)["loss"]) * len(ids)
        prefix = model.visual_prefix(image[None])
        prompt_ids = [2, *model.opt_tokenizer(prompt, add_special_tokens=False).input_ids]
        embeds = model.opt_model.get_input_embeddings()(torch.tensor([prompt_ids]))
        logits = model.opt_model(inputs_embeds=torch.cat([prefix, embeds], dim=1)).logits[0, -1]
    return whole, float(logits.log_softmax(dim=-1)[ids[0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": "Answer:"}, r"prompt is 'Answer:'; it needs exactly one \{\}"),
        ({"inference_method": "rank"}, "'rank' needs answer_list"),
        ({"inference_method": "rank", "answer_list": []}, "0 answers"),
        ({"inference_method": "beam"}, "'beam'; expected generate or rank"),
    ],
)
def test_a_wrong_call_is_a_clear_error(
    model: MSMedCap, samples: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model.predict_answers(samples, **arguments)


def test_what_is_absent_is_named(model: MSMedCap, samples: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needs samples\['image'\]"):
        model.predict_answers({"text_input": QUESTIONS})
    with pytest.raises(ValueError, match="2 texts for 5 images"):
        model.predict_answers({**samples, "text_input": QUESTIONS[:2]})


def test_braces_of_a_question_are_kept() -> None:
    assert format_questions(["{a}?"], PROMPT) == ["Question: {a}? Short answer:"]


def test_lemmas(model: MSMedCap, samples: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    spacy = pytest.importorskip("spacy")
    vocabulary = spacy.blank("en").vocab

    def tagged(text: str) -> Any:
        words = text.split()
        nouns = ["NOUN" if word.endswith("s") else "ADJ" for word in words]
        return spacy.tokens.Doc(
            vocabulary, words, pos=nouns, lemmas=[word.rstrip("s") for word in words]
        )

    lemmas._load_pipeline.cache_clear()
    with pytest.raises(MSMedCapError, match="spacy download en_core_web_sm"):
        model.predict_answers({**samples, "apply_lemmatizer": True}, max_len=2)
    monkeypatch.setattr(spacy, "load", lambda _: tagged)
    rank = {"inference_method": "rank", "answer_list": ["two circles"], "prompt": PROMPT}
    model.apply_lemmatizer = True
    assert model.predict_answers(samples, **rank) == ["two circle"] * 5
    lemmas._load_pipeline.cache_clear()


@pytest.mark.parametrize("method", ["generate", "rank"])
def test_lavis_vqa_task(model: MSMedCap, tmp_path: Path, method: str) -> None:
    files = _vqa_files(tmp_path)
    processor = MSMedCapImageEvalProcessor(image_size=16, sam_image_size=32)
    dataset = COCOVQAEvalDataset(processor, str, str(tmp_path), [str(file) for file in files])
    run = {"prompt": PROMPT, "inference_method": method, "num_beams": 2, "max_len": 5}
    task = VQATask.setup_task(SimpleNamespace(run_cfg=OmegaConf.create(run)))
    task.answer_list = dataset.answer_list
    task.ques_files = {"val": dataset.coco_fmt_qust_file}
    task.anno_files = {"val": dataset.coco_fmt_anno_file}
    registry.mapping["paths"].update(output_dir=str(tmp_path), result_dir=str(tmp_path))

    results = task.evaluation(model, DataLoader(dataset, batch_size=2), cuda_enabled=False)
    assert [result["question_id"] for result in results] == [70, 71, 72]
    expected = model.predict_answers(
        {
            "image": torch.stack([dataset[i]["image"] for i in range(3)]),
            "text_input": QUESTIONS[:3],
        },
        num_beams=2,
        max_len=5,
        inference_method=method,
        answer_list=ANSWERS,
        prompt=PROMPT,
    )
    assert [result["answer"] for result in results] == expected
    if method == "rank":  # LAVIS' score, with the truth set to what was answered to two of three
        _vqa_files(tmp_path, [*expected[:2], "nothing"])
        metrics = task.after_evaluation(results, "val")
        assert metrics["agg_metrics"] == pytest.approx(66.67)


def _vqa_files(folder: Path, truth: list[str] | None = None) -> list[Path]:
    """Writes images and the four files of a VQA dataset as LAVIS reads them."""
    truth = truth or ["left", "two", "hand"]
    rows, questions, annotations = [], [], []
    for number, (question, answer) in enumerate(zip(QUESTIONS, truth)):
        Image.new("RGB", (30, 20), (80 * number, 40, 90)).save(folder / f"{number}.png")
        key = {"question_id": 70 + number, "image_id": number}
        rows.append({**key, "image": f"{number}.png", "question": question, "answer": [answer]})
        questions.append({**key, "question": question})
        answers = [{"answer": answer, "answer_id": i} for i in range(10)]
        kind = {"question_type": "what", "answer_type": "other", "multiple_choice_answer": answer}
        annotations.append({**key, **kind, "answers": answers})
    head = {"info": {}, "task_type": "Open-Ended", "data_type": "png", "data_subtype": "val"}
    contents = [
        rows,
        ANSWERS,
        {**head, "license": {}, "questions": questions},
        {**head, "license": {}, "annotations": annotations},
    ]
    files = [folder / f"{name}.json" for name in ("rows", "answers", "questions", "truth")]
    for file, content in zip(files, contents):
        file.write_text(json.dumps(content))
    return files
