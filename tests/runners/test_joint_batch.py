"""Two processes against one with the joint batch: both stages, every recipe that ships.

Losses are equal to 1e-5 and gradients to 1e-4; only the order of float32 sums differs. Dropout of
the Q-Formers is 0 here, because every rank draws dropout masks of its own, which no single process
would draw for the joint batch. Hard negatives are drawn as always: both layouts draw the same ones.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavis_msmedcap.run_config import resolve_stages
from lavis_msmedcap.run_sources import packaged_configs

G, M = "general", "medical"
# branch to the domains that its Q-Former trains on; None: no such branch
PRETRAIN: dict[str, tuple[list[str] | None, list[str] | None]] = {
    "G_none": ([G], None),
    "GM_none": ([G, M], None),
    "none_GM": (None, [G, M]),
    "G_G": ([G], [G]),
    "GM_G": ([G, M], [G]),
    "G_GM": ([G], [G, M]),
    "GM_GM": ([G, M], [G, M]),
}
CAPTION = {"clip": (True, False), "sam": (False, True), "clip_sam": (True, True)}
CHECKPOINTED = ("pretrain-G_GM", "caption-clip_sam")  # with gradient checkpointing too
NAMES = [
    *(f"pretrain-{name}" for name in PRETRAIN),
    *(f"caption-{name}" for name in CAPTION),
    *(f"{name}-checkpointed" for name in CHECKPOINTED),
]
# captions of very different lengths: the ranks hold different numbers of tokens
TEXTS = [
    "hand",
    "a round lesion",
    "two red circles",
    "axial ct of the chest showing a round lesion in the left upper lobe",
    "a radiograph of the hand showing a round lesion above the left hand",
    "two red circles above a blue square above two red circles",
]
HALVES, UNEVEN = [3, 3], [4, 2]


def batch(domains: list[str], split: list[int] = HALVES) -> dict[str, Any]:
    return {"texts": TEXTS, "domains": domains, "split": split}


def pretrain_batches(domains: list[str]) -> list[dict[str, Any]]:
    found = [batch([domain] * 6) for domain in domains]
    found.append(batch([domains[0]] * 6, UNEVEN))
    if len(domains) == 2:
        found.append(batch([G, G, G, M, M, M]))  # each rank has a domain of its own
        found.append(batch([G, M, G, M, M, G]))
        found.append(batch([M, M, M, M, G, M]))  # one general image in all
        found.append(batch([M, M, G, M, G, M], UNEVEN))
    return found


@pytest.fixture(scope="module")
def worker(tiny: ModuleType) -> ModuleType:
    return tiny.load_beside("joint_batch_worker")


@pytest.fixture
def settings(stage1_settings: dict[str, Any], stage2_settings: dict[str, Any]) -> list[Any]:
    for both in (stage1_settings, stage2_settings):
        both["qformer"]["dropout"] = 0.0
    return [stage1_settings, stage2_settings]


def cases(stage1: dict[str, Any], stage2: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, recipe in PRETRAIN.items():
        settings = copy.deepcopy(stage1)
        for branch, train_on in zip(("clip", "sam"), recipe):
            if train_on is None:
                settings["branches"][branch] = None
            else:
                settings["branches"][branch]["train_on"] = train_on
        domains = sorted({domain for own in recipe for domain in own or ()})
        found[f"pretrain-{name}"] = {
            "stage": 1,
            "settings": settings,
            "domains": domains,
            "batches": pretrain_batches(domains),
        }
    for name, kept in CAPTION.items():
        settings = copy.deepcopy(stage2)
        for branch, keep in zip(("clip", "sam"), kept):
            if not keep:
                settings["branches"][branch] = None
        found[f"caption-{name}"] = {
            "stage": 2,
            "settings": settings,
            "domains": [M],
            "batches": [batch([M] * 6), batch([G] * 6), batch([M] * 6, UNEVEN)],
        }
    for name in CHECKPOINTED:
        case = copy.deepcopy(found[name])
        case["settings"]["qformer"]["gradient_checkpointing"] = True
        if case["stage"] == 2:
            case["settings"]["llm"]["gradient_checkpointing"] = True
        found[f"{name}-checkpointed"] = case
    return found


class Ranks:
    """What the two processes found; they are started once for all tests of this file."""

    folder: Path | None = None


@pytest.fixture
def folder(
    settings: list[Any],
    packed_images: Tensor,
    tiny: ModuleType,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    if Ranks.folder is None:
        folder = tmp_path_factory.mktemp("joint_batch")
        (folder / "cases.json").write_text(json.dumps(cases(*settings)))
        six = torch.cat([packed_images, packed_images[1:2]])
        save_file({"images": six}, folder / "images.safetensors")
        script = Path(__file__).with_name("joint_batch_worker.py")
        tiny.load_beside("processes").run_ranks(script, str(folder))
        Ranks.folder = folder
    return Ranks.folder


def inputs(folder: Path, name: str) -> tuple[dict[str, Any], Tensor]:
    case = json.loads((folder / "cases.json").read_text())[name]
    return case, load_file(folder / "images.safetensors")["images"]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one(folder: Path, worker: ModuleType, name: str) -> None:
    expected = worker.measure(*inputs(folder, name))
    first, second = (load_file(folder / f"{name}.{rank}.safetensors") for rank in range(2))
    assert first.keys() == expected.keys()
    for key, value in expected.items():
        if " loss " in key:
            tolerance = 1e-5
        else:
            tolerance = 1e-4
            assert torch.equal(first[key], second[key])
        torch.testing.assert_close(
            first[key], value, atol=tolerance, rtol=0, msg=lambda m, k=key: f"{k}: {m}"
        )
    gradients = [float(v.abs().max()) for key, v in expected.items() if " gradient " in key]
    assert sorted(gradients)[len(gradients) // 2] > 1e-2  # large beside the tolerance


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("caption")])
def test_accumulated_captions_equal_one_large_batch(
    folder: Path, worker: ModuleType, name: str
) -> None:
    """Two processes with three batches of one caption each, and one process with all six."""
    case, images = inputs(folder, name)
    expected = worker.train(case, images, per_rank=6, accumulate=1)
    alone = worker.train(case, images, per_rank=2, accumulate=3)
    together = load_file(folder / f"{name}-accumulated.0.safetensors")
    for found in (alone, together):
        for key, value in expected.items():
            # the norm of the second step comes after weights that rounding has moved, where the
            # random network is steep: it doubles or more within one step of length 1e-3
            relative = 1e-3 if key == "gradient norms" else 1e-5
            torch.testing.assert_close(
                found[key], value, atol=1e-5, rtol=relative, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.mark.parametrize("name", NAMES)
def test_parameters_without_a_gradient_are_where_the_model_says(
    folder: Path, worker: ModuleType, name: str
) -> None:
    """DDP is told by `trains_as_a_whole` whether it has to look for them."""
    case, images = inputs(folder, name)
    model = worker.build(case)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    by_domain = {}
    for part in case["batches"]:
        if len(set(part["domains"])) == 1:
            model.zero_grad(set_to_none=True)
            model(worker.rows_of(part, images))["loss"].backward()
            with_gradient = {n for n, p in model.named_parameters() if p.grad is not None}
            by_domain[part["domains"][0]] = with_gradient == trainable
    assert set(by_domain) >= set(case["domains"])
    assert model.trains_as_a_whole(case["domains"], 6) == all(by_domain.values())
    assert all(model.trains_as_a_whole([d], 6) == whole for d, whole in by_domain.items())


def test_a_joint_batch_of_one_leaves_out_the_matching_head(
    folder: Path, worker: ModuleType
) -> None:
    model = worker.build(inputs(folder, "pretrain-GM_GM")[0])
    assert model.trains_as_a_whole([G], 2)
    assert not model.trains_as_a_whole([G], 1)


def test_every_shipped_recipe_is_compared() -> None:
    """The recipes above are those of all training runs under ``projects/msmedcap``."""
    pretrain, caption = set(), set()
    for path in packaged_configs():
        for config, _ in resolve_stages(path):
            branches = config.to_dict()["model"]["branches"]
            recipe = tuple((branches[n] or {}).get("train_on") for n in ("clip", "sam"))
            if config.model_cfg.arch == "blip2_dual_qformer":
                domains = {data.domain for data in config.datasets_cfg.values()}
                assert domains == {domain for own in recipe for domain in own or ()}
                pretrain.add(str(recipe))
            else:
                caption.add(tuple(own is not None for own in recipe))
    assert pretrain == {str(recipe) for recipe in PRETRAIN.values()}
    assert caption == set(CAPTION.values())
