from __future__ import annotations

import pickle
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.datasets.caption_datasets import MedCapEvalDataset, MedCapTrainDataset
from lavis_msmedcap.datasets.mixing import BatchPlan, JoinedDataset, PlannedBatchSampler
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.imaging.augment import Augmentation
from lavis_msmedcap.processors.caption_processors import MSMedCapCaptionProcessor
from lavis_msmedcap.processors.image_processors import (
    MSMedCapImageEvalProcessor,
    MSMedCapImageTrainProcessor,
)

CAPTIONS = ("Fig. 1. One (arrow).", "Two.", "Three.")


def _record(path, number, captions=CAPTIONS):
    return MedCapRecord(
        image=str(path),
        captions=captions,
        image_id=f"image{number}",
        split="train",
        group_id=None,
        source="roco",
        domain="medical",
    )


def _dataset(records, cls=MedCapTrainDataset, **options):
    return cls(
        records,
        MSMedCapImageEvalProcessor(16, 24),
        MSMedCapCaptionProcessor(),
        name="roco",
        domain="medical",
        **options,
    )


@pytest.fixture
def records(tmp_path, make):
    return [_record(make.save(tmp_path / f"{i}.png", seed=i), i) for i in range(8)]


def test_training_sample(records):
    sample = _dataset(records)[3]
    assert sample.pop("image").shape == (32 + 3 * 16 * 16 + 3 * 24 * 24,)
    assert sample.pop("text_input") in {"One.", "Two.", "Three."}
    assert sample == {
        "image_id": "image3",
        "instance_id": "roco-3",
        "dataset": "roco",
        "domain": "medical",
        "image_path": records[3].image,
    }


def test_evaluation_sample_has_raw_references(records):
    sample = _dataset(records, MedCapEvalDataset)[0]
    assert sample["text_input"] == "One."
    assert sample["references"] == list(CAPTIONS)


def test_each_epoch_takes_the_next_caption(records):
    dataset = _dataset(records, seed=1)
    texts = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        texts.append([dataset.caption(i) for i in range(len(dataset))])
    for of_image in zip(*texts):
        assert set(of_image) == set(CAPTIONS)
    assert len(set(texts[0])) > 1  # images do not start together
    again = _dataset(records, seed=1)
    again.set_epoch(2)
    assert [again.caption(i) for i in range(8)] == texts[2]
    other = [_dataset(records, seed=2).caption(i) for i in range(8)]
    assert other != texts[0]


def test_starts_are_spread_over_the_captions(records):
    dataset = _dataset(records[:1] * 900)
    counts = Counter(dataset.caption(i) for i in range(900))
    assert min(counts.values()) > 240


def test_running_workers_see_the_next_epoch(records):
    dataset = _dataset(records)
    loader = DataLoader(
        dataset, batch_size=4, num_workers=1, persistent_workers=True, collate_fn=dataset.collater
    )
    for epoch in range(3):
        dataset.set_epoch(epoch)
        texts = [text for batch in loader for text in batch["text_input"]]
        clean = dataset.text_processor
        assert texts == [clean(dataset.caption(i)) for i in range(8)]


def test_lavis_look(records):
    dataset = _dataset(records, ratio=0.5)
    assert len(dataset) == 8
    assert (dataset.name, dataset.domain, dataset.ratio) == ("roco", "medical", 0.5)
    dataset.set_processors(lambda _: torch.zeros(1), str.upper)
    assert dataset[0]["text_input"].isupper()
    batch = dataset.collater([dataset[0], dataset[1]])
    assert batch["image"].shape == (2, 1)
    copy = pickle.loads(pickle.dumps(_dataset(records)))
    assert copy[0]["image_id"] == "image0"


def test_bad_image_names_the_file(tmp_path, make):
    path = tmp_path / "half.jpg"
    path.write_bytes(make.truncated_jpeg())
    with pytest.raises(BadImageError, match=r"half\.jpg.*truncated"):
        _dataset([_record(path, 0)])[0]


def test_planned_batches_of_two_datasets(records):
    joined = JoinedDataset({"roco": _dataset(records), "medicat": _dataset(records[:5])})
    plan = BatchPlan(joined.specs({"medicat": 2}), 3, seed=0)
    sampler = PlannedBatchSampler(plan, joined)
    batches = list(DataLoader(joined, batch_sampler=sampler, collate_fn=joined.collater))
    assert len(batches) == 6
    assert {batch["image"].shape[0] for batch in batches} == {3}
    assert all(set(batch["domain"]) == {"medical"} for batch in batches)


# --- what the processor may do beside its views ------------------------------------------------


def _augmenting(records, cls=MedCapTrainDataset, seed=3):
    augmentation = Augmentation(flip=True, swap_laterality=True)
    processor = MSMedCapImageTrainProcessor(16, 24, augmentation=augmentation)
    text = MSMedCapCaptionProcessor()
    return cls(records, processor, text, name="roco", domain="medical", seed=seed)


def test_augmentation_depends_on_seed_epoch_and_index_alone(records):
    dataset, resumed = _augmenting(records), _augmenting(records)
    dataset[0], dataset[5]  # what was read before plays no part
    for each in (dataset, resumed):
        each.set_epoch(4)
    image = dataset[3]["image"]
    assert torch.equal(image, resumed[3]["image"])
    resumed.set_epoch(5)
    assert not torch.equal(image, resumed[3]["image"])
    other = _augmenting(records, seed=4)
    other.set_epoch(4)
    assert not torch.equal(image, other[3]["image"])


def test_the_caption_follows_a_mirrored_picture(tmp_path, make):
    path = make.save(tmp_path / "a.png", seed=0)
    dataset = _augmenting([_record(path, 0, ("The left lung.",))])
    told = []
    for epoch in range(20):
        dataset.set_epoch(epoch)
        told.append(dataset[0]["text_input"])
    assert set(told) == {"The left lung.", "The right lung."}


def test_evaluation_is_never_augmented(records):
    plain = MSMedCapImageTrainProcessor(16, 24)
    sample = _augmenting(records, MedCapEvalDataset)[2]
    assert torch.equal(sample["image"], plain(plain.read(records[2].image)))


def test_processors_of_lavis_get_the_picture(records):
    dataset = MedCapTrainDataset(
        records,
        lambda picture: picture.mode,
        MSMedCapCaptionProcessor(),
        name="roco",
        domain="medical",
    )
    assert dataset[0]["image"] == "RGB"
