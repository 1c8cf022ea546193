"""What keys of the ``datasets:`` section must hold together, and which processors they may name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lavis_msmedcap.common.config_check import check, show
from lavis_msmedcap.datasets import skipping
from lavis_msmedcap.datasets.records import DOMAINS, SPLITS
from lavis_msmedcap.run_relations.model import OWN_IMAGE_PROCESSORS
from lavis_msmedcap.run_relations.values import (
    evaluated_splits,
    is_number,
    mapping,
    splits_of,
    training_ratios,
    trains,
)
from lavis_msmedcap.runners.loaders import TRAIN

IMAGE, TEXT = "images", "texts"
# of LAVIS; processors that somebody else registered are taken at their word
LAVIS_IMAGE_PROCESSORS = (
    "blip_image_train",
    "blip_image_eval",
    "blip2_image_train",
    "clip_image_train",
    "clip_image_eval",
)
LAVIS_VIDEO_PROCESSORS = ("alpro_video_train", "alpro_video_eval", "gpt_video_ft")
LAVIS_TEXT_PROCESSORS = ("blip_caption", "blip_question", "gpt_dialogue")
KINDS = {
    **dict.fromkeys(("msmedcap_image_train", "msmedcap_image_eval"), IMAGE),
    **dict.fromkeys(LAVIS_IMAGE_PROCESSORS, IMAGE),
    **dict.fromkeys(LAVIS_VIDEO_PROCESSORS, "videos"),
    **dict.fromkeys(("msmedcap_caption", *LAVIS_TEXT_PROCESSORS), TEXT),
}
EXPECTED = {
    "vis_processor": (IMAGE, "msmedcap_image_{part}"),
    "text_processor": (TEXT, "msmedcap_caption"),
}


def dataset_problems(
    config: Mapping[str, Any], own: Collection[str], incomplete: Collection[str] = ()
) -> Iterator[str]:
    """Lists what does not fit together in the sections of datasets.

    Of a dataset that is not of this package, only what our runner needs to mix it in.

    Args:
        config: All sections.
        own: Parts of this package among model, task, runner and datasets.<name>.
        incomplete: Sections with holes that are told elsewhere.
    """
    for name, settings in config["datasets"].items():
        if not isinstance(settings, Mapping):
            continue
        if f"datasets.{name}" not in own:
            if "runner" in own and f"datasets.{name}" not in incomplete:
                yield from _foreign_problems(name, settings, config)
        else:
            yield from _split_problems(f"datasets.{name}", settings)
            yield from _fraction_problems(f"datasets.{name}", settings)
            yield from processor_problems(name, settings)
            yield from _reading_problems(f"datasets.{name}.vis_processor", settings)
    yield from _augmentation_problems(config, own)
    if "runner" in own and trains(config):
        yield from _mixed_image_problems(config)


def _foreign_problems(
    name: str, settings: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[str]:
    """Finds what a dataset of LAVIS or of somebody else lacks beside those of this package."""
    path, domain, ratio = f"datasets.{name}", settings.get("domain"), settings.get("ratio", 1.0)
    if domain not in DOMAINS:
        lack = "missing" if domain is None else show(domain)
        yield (
            f"{path}.domain is {lack}; expected {' or '.join(DOMAINS)}, which says what branches "
            "train on a dataset that is not of this package"
        )
    if not is_number(ratio) or ratio < 0:
        yield f"{path}.ratio is {show(ratio)}; expected a number of at least 0"
    yield from check(settings, skipping.KEYS, path, unknown=False)
    yield from processor_problems(name, settings)
    splits = splits_of(settings)
    needed = ["train"] if trains(config) and TRAIN in splits else []
    needed += ["eval"] if any(s in splits for s in evaluated_splits(config["run"])) else []
    # LAVIS' builders read annotations; what others do about processors is their own business
    if not mapping(mapping(settings.get("build_info")).get("annotations")):
        return
    for part in needed:
        if not mapping(mapping(settings.get("vis_processor")).get(part)).get("name"):
            yield (
                f"{path}.vis_processor.{part} is missing; name the one of the other datasets, for "
                f"example {{name: msmedcap_image_{part}, image_size: …, sam_image_size: …}}"
            )


def processor_problems(dataset: str, settings: Any) -> Iterator[str]:
    """Finds processors of another kind than their place asks for."""
    for key, (wanted, example) in EXPECTED.items():
        for part, chosen in mapping(mapping(settings).get(key)).items():
            name = mapping(chosen).get("name")
            if is_of_wrong_kind(key, name):
                kind = KINDS[str(name)]
                yield (
                    f"datasets.{dataset}.{key}.{part}.name is {name}, which is for {kind}; "
                    f"expected a processor of {wanted}, for example {example.format(part=part)}"
                )


def is_of_wrong_kind(key: str, name: Any) -> bool:
    """Tells whether a processor is known to be of another kind than ``key`` asks for."""
    return isinstance(name, str) and name in KINDS and KINDS[name] != EXPECTED[key][0]


def _split_problems(path: str, settings: Mapping[str, Any]) -> Iterator[str]:
    if not splits_of(settings):
        tables = "table" in mapping(settings.get("build_info"))
        key = f"{path}.build_info.{'table' if tables else 'annotations'}"
        key = f"{path}.splits" if settings.get("splits") is not None else key
        yield (
            f"{key} names no split, so nothing of the dataset would be read; name some of "
            f"{', '.join(SPLITS)}, or leave the dataset out ({path}=null)"
        )
    if settings.get("kinds") == []:
        yield f"{path}.kinds is empty, so nothing would be read; write [radiology]"


def _fraction_problems(path: str, settings: Mapping[str, Any]) -> Iterator[str]:
    fractions = mapping(settings.get("split_fractions"))
    if not fractions or not all(is_number(share) for share in fractions.values()):
        return
    total = sum(fractions.values())
    if total > 1 + 1e-9:
        yield (
            f"{path}.split_fractions add up to {total:g}; expected shares that add up to at most 1"
        )
    # without a list, a split that has no share is none
    listed = splits_of(settings) if isinstance(settings.get("splits"), list) else ()
    empty = [split for split in listed if not fractions.get(split)]
    if empty:
        rest = ", ".join(split for split in splits_of(settings) if split not in empty)
        yield (
            f"{path}.split_fractions leaves nothing to {', '.join(empty)}; give it a share, or "
            f"write {path}.splits=[{rest}]"
        )


def _reading_problems(path: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Finds pictures that training and evaluation would not see alike."""
    processors = mapping(settings.get("vis_processor"))
    train, evaluation = (mapping(processors.get(part)) for part in ("train", "eval"))
    if not all(
        str(part.get("name")).startswith(OWN_IMAGE_PROCESSORS) for part in (train, evaluation)
    ):
        return
    if (train.get("window") or {}) != (evaluation.get("window") or {}):
        yield (
            f"{path}.train.window is {show(train.get('window'))}, but that of eval is "
            f"{show(evaluation.get('window'))}, so that scans would look different in evaluation; "
            "write the same for both"
        )


def _augmentation_problems(config: Mapping[str, Any], own: Collection[str]) -> Iterator[str]:
    """Finds augmentation that cannot work, or that makes a cache of features useless."""
    cached = config["run"].get("feature_cache_gib", 0)
    for name, settings in config["datasets"].items():
        train = mapping(mapping(mapping(settings).get("vis_processor")).get("train"))
        ours = str(train.get("name")).startswith(OWN_IMAGE_PROCESSORS)
        if not ours or train.get("augment") is None or not trains(config):
            continue
        path = f"datasets.{name}.vis_processor.train.augment"
        if f"datasets.{name}" not in own and "task" not in own:  # our tasks augment for it
            yield (
                f"{path}: neither the dataset's class nor the task is of this package, so nothing "
                "would augment; write null, or use a dataset of this package"
            )
        elif is_number(cached) and cached > 0:
            yield (
                f"run.feature_cache_gib is {cached:g}, but {path} changes the pictures in every "
                "epoch, so that no kept features would be used again; write "
                "run.feature_cache_gib=0, or augment: null"
            )


def _mixed_image_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Finds datasets of one domain, so of one batch, whose images cannot be stacked."""
    for domain in DOMAINS:
        makers: dict[str, str] = {}
        for name, ratio in training_ratios(config).items():
            settings = mapping(config["datasets"][name])
            chosen = mapping(mapping(settings.get("vis_processor")).get("train"))
            maker = chosen.get("name")
            if settings.get("domain") == domain and ratio > 0 and KINDS.get(str(maker)) == IMAGE:
                makers[name] = _format_of(chosen)
        if len(set(makers.values())) > 1:
            told = ", ".join(f"{name}: {made}" for name, made in makers.items())
            yield (
                f"datasets: the {domain} ones are mixed in one batch, but their "
                f"vis_processor.train make images of different formats ({told}); name the same "
                "processor and size for all of them"
            )


def _format_of(processor: Mapping[str, Any]) -> str:
    name = str(processor.get("name"))
    if name.startswith(OWN_IMAGE_PROCESSORS):
        return "packed views"  # whose sizes are compared with the encoders
    size = processor.get("image_size")
    return f"a tensor of {size} pixels" if size is not None else f"a tensor of {name}"
