"""What `data` commands read: the data sets of a run configuration, or a folder in any format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.errors import ConfigError, WeightsError
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.data_check.captions import CaptionRules
from lavis_msmedcap.data_check.formats import read_place
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.records import SPLITS, MedCapRecord
from lavis_msmedcap.imaging.read import ReadOptions
from lavis_msmedcap.run_config import RunConfig, resolve_stages

_NEVER = 10**9  # words


@dataclass
class RunData:
    """The data of all stages of a run configuration.

    Attributes:
        banner: Configuration and scale, for people.
        records: All records, each once, those without image file among them.
        reports: What the readers counted, by data set.
        rules: What training does with captions, by data set.
        reading: Windows and limits that images are read with, by data set and split.
        notes: Sentences about what could not be looked at.
    """

    banner: str
    records: list[MedCapRecord] = field(default_factory=list)
    reports: list[ReadReport] = field(default_factory=list)
    rules: dict[str, CaptionRules] = field(default_factory=dict)
    reading: dict[tuple[str, str], ReadOptions] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def data_of(cfg_path: str, options: Sequence[str] = (), *, to_store: bool = False) -> RunData:
    """Reads the data sets of a run as training does, every stage's, without building a model.

    Missing weights and checkpoints do not matter.

    Args:
        cfg_path: YAML file.
        options: Words behind ``--options``.
        to_store: The data are written anew, exactly as training would read them: images that are
            missing count as in training, and all data sets must be known and the same in all
            stages. What training does with captions is not looked at.

    Raises:
        ConfigError: If the configuration has other problems, or no data set of this package.
        DataError: If a data set cannot be read.
    """
    stages = resolve_stages(cfg_path, options)
    problems = [problem for config, found in stages for problem in data_problems(config, found)]
    if to_store:
        problems += _cannot_be_stored([config for config, _ in stages])
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), str(stages[0][0].source))
    data = RunData(f"{cfg_path}, {stages[0][0].banner()}")
    seen: set[str] = set()
    taken: set[MedCapRecord] = set()
    for config, _ in stages:
        for name, settings in config.to_dict()["datasets"].items():
            # stages mostly share their data sets; what a text becomes may differ between them
            what = json.dumps([name, settings], sort_keys=True, default=str)
            if what not in seen:
                _add(data, name, config, taken, to_store)
            seen.add(what)
    if not data.records:
        raise ConfigError(["; ".join(data.notes) or "datasets is empty"], cfg_path)
    return data


def data_of_places(
    places: Sequence[Path],
    format_name: str | None = None,
    *,
    images: Path | None = None,
    name: str | None = None,
) -> RunData:
    """Reads a folder, or the files of one data set, in whatever format they are in.

    Args:
        places: A folder or file; or several files, each of the split that its name tells.
        format_name: Format to take instead of looking.
        images: Folder that image names are relative to, instead of where the format has them.
        name: Of the data set; by default that of the folder or file.

    Raises:
        DataError: If they cannot be read.
    """
    resolved = [resolve_path(place) for place in places]
    whole = resolved[0].parent if len(places) > 1 else resolved[0]
    report = ReadReport(name or (whole.stem if whole.is_file() else whole.name))
    data = RunData("", reports=[report])
    titles = []
    for place, path in zip(places, resolved):
        chosen, records = read_place(path, report, format_name, images and resolve_path(images))
        titles.append(f"{place}, {chosen.what}")
        data.records += records
    data.banner = "; ".join(titles)
    if len(places) > 1:
        names = ", ".join(place.name for place in places)
        data.notes.append(f"{names} are read as one data set, each as the split in its name")
    return data


def _cannot_be_stored(configs: Sequence[RunConfig]) -> Iterator[str]:
    """Finds data sets that only LAVIS can read, and those that are not the same in all stages."""
    from lavis.common.registry import registry

    sections: dict[str, Any] = {}
    for config in configs:
        for name, section in config.datasets_cfg.items():
            if sections.setdefault(name, section) != section:
                yield (
                    f"datasets.{name} differs between stages; take all but one of them out with "
                    "--options stages.<name>=null"
                )
            if not hasattr(registry.get_builder_class(name), "read_records"):
                yield (
                    f"datasets.{name} is of LAVIS itself, and only its own code knows its images; "
                    f"leave it out with --options datasets.{name}=null"
                )


def data_problems(config: RunConfig, problems: Sequence[str]) -> list[str]:
    """Leaves out the problems of a configuration that are only about files of the model."""
    from lavis_msmedcap.run_checks import absent_inputs

    absent = tuple(text for text in absent_inputs(config.to_dict()) if text.startswith("model."))
    where = f"stages.{config.stage}: " if config.stage else ""
    return [text for text in problems if not text.removeprefix(where).startswith(absent or ("\0",))]


def _add(
    data: RunData, name: str, config: RunConfig, taken: set[MedCapRecord], to_store: bool
) -> None:
    from lavis.common.registry import registry

    from lavis_msmedcap.datasets.builders.foreign import read_foreign_records

    builder_cls = registry.get_builder_class(name)
    section = config.datasets_cfg[name]
    report = ReadReport(name)
    if hasattr(builder_cls, "read_records"):
        found = builder_cls(section).read_records(report, keep_missing=not to_store)
    else:
        found = read_foreign_records(name, builder_cls, section, report)
    if found is None:
        data.notes.append(
            f"datasets.{name} has no records to check: LAVIS would have to download its files, or "
            "its builder does not tell its images without loading them"
        )
        return
    for records in found.values():
        data.records += [record for record in records if record not in taken]
        taken.update(records)
    data.reports.append(report)
    sections = config.to_dict()
    for split, options in read_options(sections["datasets"][name]).items():
        if data.reading.setdefault((name, split), options) != options:
            data.notes.append(
                f"datasets.{name}: vis_processor reads {split} otherwise in another stage; the "
                "images are looked at as the first stage reads them"
            )
    if to_store:
        return
    processor = sections["datasets"][name]["text_processor"]["train"]
    data.rules.setdefault(name, _rules(processor, sections["model"], data.notes))


# --- images --------------------------------------------------------------------------------------


def read_options(section: Mapping[str, Any]) -> dict[str, ReadOptions]:
    """Returns how the image processors of a data set read its images, by split.

    Processors of LAVIS and of other packages do not say it, and read as `read_image` does.

    Args:
        section: Of the data set, in plain types.
    """
    from lavis.common.registry import registry
    from omegaconf import OmegaConf

    found = {}
    for split in SPLITS:
        settings = section["vis_processor"].get("train" if split == "train" else "eval")
        cls = registry.get_processor_class(settings["name"]) if settings else None
        if cls is not None and hasattr(cls, "read"):
            found[split] = cls.from_config(OmegaConf.create(dict(settings))).read_options
    return found


# --- captions ------------------------------------------------------------------------------------


def _rules(settings: Mapping[str, Any], model: Mapping[str, Any], notes: list[str]) -> CaptionRules:
    """Asks the text processor of training and the model's tokenizer."""
    from lavis.common.registry import registry
    from omegaconf import OmegaConf

    cls = registry.get_processor_class(settings["name"])
    max_words = int(getattr(cls.from_config(OmegaConf.create(dict(settings))), "max_words", 0))
    # LAVIS' own processors have no word for "no limit"
    uncut = cls.from_config(OmegaConf.create({**settings, "max_words": _NEVER}))
    try:
        count, name = _token_counter(model)
    except (WeightsError, OSError, KeyError, ValueError) as error:
        notes.append(f"captions are counted in words only, there is no tokenizer: {error}")
        count, name = None, ""
    limit = int(model.get("max_txt_len") or 0)
    return CaptionRules(uncut, max_words, limit, count, name)


def _token_counter(model: Mapping[str, Any]) -> tuple[Callable[[str], int] | None, str]:
    """Makes a function that counts the tokens of a text as the model's limit counts them."""
    from lavis_msmedcap.models.build import load_text_tokenizer
    from lavis_msmedcap.models.llm import load_tokenizer
    from lavis_msmedcap.models.llm_build import LLM_TOKENIZER
    from lavis_msmedcap.models.llm_text import encode
    from lavis_msmedcap.models.weight_files import locate

    reference = (model.get("llm") or {}).get("tokenizer")
    if reference:
        tokenizer = load_tokenizer(locate(reference, LLM_TOKENIZER))
        prompt = str(model.get("prompt") or "").rstrip()

        def of_llm(text: str) -> int:
            # with </s> before and the line break behind it
            return len(encode(tokenizer, f"{prompt} {text}".strip())) + 2

        return of_llm, "model.llm.tokenizer, prompt included"
    reference = (model.get("qformer") or {}).get("tokenizer")
    if reference:
        wordpiece = load_text_tokenizer(reference)
        return lambda text: len(wordpiece(text).input_ids), "model.qformer.tokenizer"
    return None, ""
