"""Names of files may be names of people: no ending makes one fit for a tracker."""

from __future__ import annotations

from lavis_msmedcap.runners.trackers import shareable


def test_whatever_the_ending() -> None:
    config = {
        "model": {
            "finetuned": "Mueller_Hans_1955",
            "stage1": "Mueller",
            "a": "scan.nii",
            "b": "x.h5",
            "c": ["pat.npz", "kept"],
            "prompt": "a photo of.",
        },
        "/data/h": 1,
        "run": {"lr_sched": "linear_warmup_cosine_lr", "seed": 42},
    }
    assert shareable(config) == {
        "model": {"c": ["kept"], "prompt": "a photo of."},
        "run": {"lr_sched": "linear_warmup_cosine_lr", "seed": 42},
    }
