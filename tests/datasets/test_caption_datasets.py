from __future__ import annotations

import pickle
from collections import Counter

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from lavis_msmedcap.common.errors import BadImageError, DataError
from lavis_msmedcap.datasets.caption_datasets import MedCapEvalDataset, MedCapTrainDataset
from lavis_msmedcap.datasets.mixing import BatchPlan, JoinedDataset, PlannedBatchSampler
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.imaging.augment import Augmentation
from lavis_msmedcap.imaging.read import read_image
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
    for cls in (MedCapTrainDataset, MedCapEvalDataset):
        with pytest.raises(BadImageError, match=r"half\.jpg.*truncated"):
            _dataset([_record(path, 0)], cls)[0]


@pytest.fixture
def broken(records, tmp_path):
    """Eight images, of which the fourth is no image and the sixth is gone."""
    (tmp_path / "3.png").write_bytes(b"<html>")
    (tmp_path / "5.png").unlink()
    return records


def test_in_training_another_image_takes_the_place_and_a_note_says_so(broken):
    dataset = _dataset(broken, on_bad="skip")
    sample = dataset[3]
    assert sample["skipped"][0].image == broken[3].image
    assert "web page" in sample["skipped"][0].reason
    assert sample["skipped"][0].dataset == "roco"
    assert sample["image_id"] not in ("image3", "image5")
    index = int(sample["instance_id"].removeprefix("roco-"))
    assert torch.equal(sample["image"], dataset[index]["image"])
    assert sample["text_input"] == dataset[index]["text_input"]
    assert "skipped" not in dataset[index]


def test_the_stand_in_depends_on_seed_and_epoch_only(broken):
    def chosen(seed):
        dataset = _dataset(broken, on_bad="skip", seed=seed)
        for epoch in range(6):
            dataset.set_epoch(epoch)
            yield dataset[3]["image_id"], dataset[5]["image_id"]

    found = list(chosen(0))
    assert found == list(chosen(0))
    assert found != list(chosen(1))
    assert len({first for first, _ in found}) > 1
    assert found[2] == _at_epoch(broken, 2)  # what a resumed run reads


def _at_epoch(records, epoch):
    dataset = _dataset(records, on_bad="skip", seed=0)
    dataset.set_epoch(epoch)
    return dataset[3]["image_id"], dataset[5]["image_id"]


def test_images_that_are_all_bad_are_an_error_in_training_too(tmp_path):
    for count in (1, 5, 60):
        gone = [_record(tmp_path / f"gone{i}.png", i) for i in range(count)]
        with pytest.raises(DataError, match=rf"^{min(count, 21)} image.*gone0\.png.*data check"):
            _dataset(gone, on_bad="skip")[0]


class Mirror(MSMedCapImageEvalProcessor):
    """Reads and augments; the texts show what it was given."""

    def read(self, path):
        self.path = path
        return read_image(path)

    def augment(self, image, caption, rng):
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), f"{caption}{rng.integers(10**6)}"


def test_a_processor_may_read_and_augment(records):
    plain = _dataset(records)
    dataset = _dataset(records)
    dataset.vis_processor = Mirror(16, 24)
    assert not torch.equal(dataset[2]["image"], plain[2]["image"])
    assert dataset.vis_processor.path == records[2].image
    texts = {}
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        texts.setdefault(epoch, dataset[2]["text_input"])
        assert dataset[2]["text_input"] == texts[epoch]
        assert dataset[3]["text_input"][-6:] != texts[epoch][-6:]
    assert texts[0] != texts[1]
    evaluation = _dataset(records, MedCapEvalDataset)
    evaluation.vis_processor = dataset.vis_processor
    assert torch.equal(evaluation[2]["image"], plain[2]["image"])


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
