"""Stage 2: captions from the frozen LLM, validated and tested by scoring what it writes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from torch import nn

from lavis_msmedcap.common.distributed import gather_objects, is_main_process
from lavis_msmedcap.common.errors import MSMedCapError, NotFiniteOutputError, told_as
from lavis_msmedcap.common.whole_files import write_whole
from lavis_msmedcap.datasets.places import is_phantom
from lavis_msmedcap.evaluation import ScoreSheet, score_captions
from lavis_msmedcap.evaluation.phantom_check import Figure, format_figures, phantom_figures
from lavis_msmedcap.report import format_scores, write_report
from lavis_msmedcap.tasks._base import Key, MSMedCapTask, Row, gather_rows

logger = logging.getLogger(__name__)

DECIDING = "CIDEr"
# where the arguments of `generate` are set in a run configuration
RUN_KEYS = {
    "num_beams": "run.num_beams",
    "max_length": "run.max_len",
    "min_length": "run.min_len",
    "length_penalty": "run.length_penalty",
    "repetition_penalty": "run.repetition_penalty",
    "samples['prompt']": "model.prompt",
}


@dataclass(frozen=True)
class Decoding:
    """How captions are written.

    Attributes:
        num_beams: Beams of the search; 1 is greedy.
        max_length: Most tokens of a caption.
        min_length: Fewest tokens.
        length_penalty: Exponent of the length that beam scores are divided by.
        repetition_penalty: Above 1 discourages tokens that occurred before.
    """

    num_beams: int = 5
    max_length: int = 30
    min_length: int = 1
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0

    @classmethod
    def from_run_cfg(cls, run_cfg: Mapping[str, Any]) -> Decoding:
        """Reads num_beams, max_len, min_len, length_penalty and repetition_penalty."""

        def read(key: str, default: Any) -> Any:
            value = run_cfg.get(key)
            return default if value is None else type(default)(value)

        return cls(
            num_beams=read("num_beams", cls.num_beams),
            max_length=read("max_len", cls.max_length),
            min_length=read("min_len", cls.min_length),
            length_penalty=read("length_penalty", cls.length_penalty),
            repetition_penalty=read("repetition_penalty", cls.repetition_penalty),
        )


@registry.register_task("medical_captioning")
class MedicalCaptioningTask(MSMedCapTask):
    """Trains on the LLM's loss; evaluates by generating and scoring captions.

    Args:
        decoding: How captions are written.
        report_split: Split that ``report.html`` is about; None writes none.
        phantom: The images are phantoms, so the four figures that show whether the model looks at
            them can be measured.
    """

    def __init__(
        self,
        decoding: Decoding | None = None,
        report_split: str | None = None,
        phantom: bool = False,
    ) -> None:
        super().__init__()
        self.decoding = decoding or Decoding()
        self.report_split = report_split
        self.phantom = phantom

    @classmethod
    def setup_task(cls, cfg: Any) -> MedicalCaptioningTask:
        """Makes the task from the ``run:`` section; the report is about the first test split."""
        run_cfg = cfg.run_cfg
        splits = list(run_cfg.get("test_splits") or [])
        if run_cfg.get("evaluate") and not splits:
            splits = list(run_cfg.get("valid_splits") or [])
        report_split = splits[0] if splits and run_cfg.get("report", True) else None
        places = [section.get("build_info") for section in cfg.datasets_cfg.values()]
        phantom = bool(places) and all(is_phantom(_plain(place)) for place in places)
        return cls(Decoding.from_run_cfg(run_cfg), report_split, phantom)

    @torch.no_grad()
    def valid_step(self, model: nn.Module, samples: Mapping[str, Any]) -> list[Row]:
        """Writes one caption per image.

        Returns:
            Per image ``image_id``, ``dataset``, ``caption``, ``references`` and ``image`` (path).

        Raises:
            ArgumentError: If a setting of the search cannot work, naming its key.
            NotFiniteOutputError: Naming the image files at fault.
        """
        try:
            with told_as(RUN_KEYS):
                captions = model.generate(  # type: ignore[operator]
                    samples, use_nucleus_sampling=False, **asdict(self.decoding)
                )
        except NotFiniteOutputError as error:
            files = [samples["image_path"][index] for index in error.images]
            raise NotFiniteOutputError(error.images, files) from error
        return [
            {
                "image_id": str(image_id),
                "dataset": dataset,
                "caption": caption,
                "references": list(references),
                "image": path,
            }
            for image_id, dataset, caption, references, path in zip(
                samples["image_id"],
                samples["dataset"],
                captions,
                samples["references"],
                samples["image_path"],
            )
        ]

    def after_evaluation(
        self,
        val_result: Sequence[Row],
        split_name: str,
        epoch: int | str,
        expected: Sequence[Key] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Saves the captions of all ranks, then scores them.

        Args:
            val_result: Rows of this rank.
            split_name: Name of the split.
            epoch: Epoch, or ``best``.
            expected: Every (dataset, image_id) that must be there.
            kwargs: What else the run tells about itself, for example ``checkpoint``; kept with
                the scores.

        Returns:
            On every rank: ``agg_metrics`` (CIDEr, or the first metric that worked; None if none
            did), ``agg_name``, and every metric that worked.
        """
        predictions = gather_rows(val_result, expected, split_name)
        summary: list[dict[str, Any]] = []
        if is_main_process():
            summary = [self._save_and_score(predictions, split_name, epoch, kwargs)]
        return gather_objects(summary)[0]

    def _save_and_score(
        self, predictions: list[Row], split: str, epoch: int | str, facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        result_dir = Path(registry.get_path("result_dir"))
        path = result_dir / f"predictions_{split}.json"
        write_json(path, predictions)  # before scoring: hours of generation must not be lost
        logger.info("%s: %d captions written to %s", split, len(predictions), path)
        sheet = score_captions(predictions)
        reported = split == self.report_split
        enough = self.phantom and len(predictions) > 1
        figures = phantom_figures(predictions) if reported and enough else {}
        facts = {"split": split, "epoch": epoch, "decoding": asdict(self.decoding), **facts}
        facts.update({"phantom_figures": figures} if figures else {})
        write_json(result_dir / f"metrics_{split}.json", {**sheet, **facts})
        logger.info("scores of %s (epoch %s):\n%s", split, epoch, format_scores(sheet))
        if figures:
            logger.info("does the model look at the images?\n%s", format_figures(figures))
        if reported:
            self._report(predictions, sheet, split, figures)
        scores = sheet["pooled"]["scores"]
        name, value = deciding_metric(scores)
        if name is None:
            logger.warning("%s: no metric could be computed, so no epoch can be best", split)
        else:
            logger.info("%s: the deciding metric is %s = %.4f", split, name, value)
        return {"agg_metrics": value, "agg_name": name, **scores}

    def _report(
        self,
        predictions: list[Row],
        sheet: ScoreSheet,
        split: str,
        figures: Mapping[str, Figure],
    ) -> None:
        run_dir = Path(registry.get_path("output_dir"))
        title = f"Captions of the {split} split"
        try:
            path = write_report(
                run_dir, predictions, sheet, split=split, title=title, figures=figures
            )
        except (OSError, MSMedCapError):
            # captions and scores are on disk already; a full disk must not make the run a failure
            logger.exception("the report could not be written")
        else:
            logger.info("report: %s", path)


def deciding_metric(scores: Mapping[str, float]) -> tuple[str | None, float | None]:
    """Chooses the score that decides which epoch is best.

    Args:
        scores: Scores that could be computed.

    Returns:
        CIDEr, else the first score there is, else (None, None).
    """
    if DECIDING in scores:
        return DECIDING, scores[DECIDING]
    return next(iter(scores.items()), (None, None))


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def write_json(path: Path, content: Any) -> None:
    """Writes JSON so that a crash leaves either the old file or the new one."""
    write_whole(path, [json.dumps(content, indent=2, ensure_ascii=False), "\n"])
