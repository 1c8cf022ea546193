"""How both models keep and load checkpoints: every key and every setting accounted for."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from lavis.models.base_model import BaseModel
from torch import Tensor, nn

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.checkpoint_check import EMPTY_BRANCH, arch_problem
from lavis_msmedcap.models.checkpoint_names import AUTHORS, NOT_TRAINED, OURS
from lavis_msmedcap.models.checkpoint_settings import (
    AUTHORS_CURE,
    differences,
    facts_of_settings,
    sort_out,
    told,
    trained_facts,
    trained_settings,
)
from lavis_msmedcap.models.checkpoints import Checkpoint, find_checkpoint, read_any_checkpoint
from lavis_msmedcap.models.encoders.sam_weights import authors_sam_weights
from lavis_msmedcap.models.frozen_marks import RESIZED, Marks, marks_of, odd_marks, read_marks
from lavis_msmedcap.models.weights import (
    USUAL_CURE,
    ExpectedKeys,
    load_strict,
    trainable_parameters,
)

MODEL = "model"  # entry of a checkpoint's header: the settings
FROZEN = "frozen"  # entry of a checkpoint's header: the marks of the frozen networks
LLM_PART = "opt_model."
SAM_ENCODER = "branches.sam.encoder."

logger = logging.getLogger(__name__)


def _are_others(theirs: Tensor, ours: Tensor, resized: bool) -> bool:
    """Tells whether two tensors differ by more than the rounding of half precision, 0.4 %.

    Args:
        theirs: A tensor.
        ours: What stands in its place.
        resized: Whether another resolution gives another shape.
    """
    if theirs.shape != ours.shape:
        return not resized
    theirs, ours = theirs.float().cpu(), ours.float().cpu()
    return bool((theirs - ours).norm() > 0.01 * ours.norm().clamp_min(1e-6))


def _warn_of_silence(checkpoint: Checkpoint, source: str) -> None:
    """Says what of a checkpoint of ours cannot be compared, because its header does not tell it."""
    if checkpoint.kind != OURS:
        return
    header = checkpoint.metadata
    untold = [] if trained_settings(header) else [f"settings ({MODEL}: prompt, sizes, SAM's input)"]
    if read_marks(header.get(FROZEN)) is None:
        untold.append(f"frozen networks ({FROZEN})")
    if untold:
        logger.warning(
            "%s does not say readably in its header with which %s it was trained; they are not "
            "compared with those here. Make sure yourself that they are the same, or take the file "
            "that the training run wrote",
            source,
            " and ".join(untold),
        )


class CheckpointedModel(BaseModel):
    """A model of branches whose trained part is kept in checkpoints.

    Args:
        branches: One or two branches by name, in the order of the visual prefix.
        settings: The ``model:`` section, kept for checkpoints.
    """

    # patterns of keys that files of BLIP-2 and of the authors may hold beyond ours, with why
    FOREIGN_EXTRAS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, branches: Mapping[str, QFormerBranch], settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.settings = dict(settings)
        self._held_marks: Marks | None = None

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Returns what a checkpoint holds: the trainable parameters."""
        return {name: p.detach() for name, p in trainable_parameters(self).items()}

    def load_trainable_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        source: str = "state dict",
        expected: ExpectedKeys | None = None,
        kind: str = OURS,
    ) -> None:
        """Loads a checkpoint's tensors; every key must be explained.

        The frozen layer norm behind a ViT is loaded too where the checkpoint has it. One of another
        code must, because its Q-Former was trained behind that one.

        Args:
            state_dict: Tensors by our names.
            source: Named in messages.
            expected: Keys that may be missing or unused.
            kind: What the checkpoint was, see `checkpoint_names`.

        Raises:
            WeightsError: Naming missing, unexpected, wrongly shaped and non-finite tensors.
        """
        targets = self.trainable_state_dict()
        for name, value in self.state_dict().items():
            if ".encoder.ln." in name and (kind != OURS or name in state_dict):
                targets[name] = value
        absent = [b for b in self.branches if not any(f"branches.{b}." in k for k in state_dict)]
        cure = EMPTY_BRANCH.format(absent[0]) if absent else USUAL_CURE
        cure += AUTHORS_CURE if kind == AUTHORS else ""
        report = load_strict(targets, state_dict, source, expected, cure)
        for line in report.lines():
            logger.info(line)

    def _load_any(self, checkpoint: Checkpoint, source: str, expected: ExpectedKeys) -> None:
        """Loads a checkpoint of any kind."""
        _warn_of_silence(checkpoint, source)
        self._check_settings(checkpoint, source)
        self._check_frozen(checkpoint, source)
        if checkpoint.kind != OURS:
            unused = {**expected.unused, **NOT_TRAINED, **self.FOREIGN_EXTRAS}
            expected = ExpectedKeys(expected.missing, unused)
            source = f"{source} (names of {checkpoint.kind})"
            self._check_encoders(checkpoint.tensors, source)
        self.load_trainable_state_dict(checkpoint.tensors, source, expected, checkpoint.kind)

    def _check_settings(self, checkpoint: Checkpoint, source: str) -> None:
        """Refuses a checkpoint whose settings contradict those of this model."""
        metadata = checkpoint.metadata
        trained = trained_facts(checkpoint.kind, metadata)
        found = differences(trained, facts_of_settings(self.settings))
        same_arch = metadata.get("arch") == self.settings.get("arch")
        wrong, other = sort_out(found, self.settings, same_arch)
        if wrong:
            raise WeightsError("\n".join(told(wrong, checkpoint.kind, source)))
        for difference in other:
            if not (FROZEN in metadata and difference.key.endswith(".weights")):
                logger.warning("%s", difference.told(source))

    def _check_frozen(self, checkpoint: Checkpoint, source: str) -> None:
        """Refuses a checkpoint that was trained with other frozen networks."""
        marks = read_marks(checkpoint.metadata.get(FROZEN)) or {}
        marks = {name: v for name, v in marks.items() if name not in checkpoint.tensors}
        odd = odd_marks(marks, self, self._frozen_parts())
        if not odd:
            return
        sentences = []
        for part in self._frozen_parts():
            ours = [name for name in odd if name.startswith(part)]
            if ours:
                sentences.append(self._told_of_frozen(part, ours, checkpoint.metadata, source))
        raise WeightsError("\n".join(sentences))

    def _told_of_frozen(
        self, part: str, odd: list[str], metadata: Mapping[str, str], source: str
    ) -> str:
        """Says in one sentence which frozen network is another one, with the cure."""
        key = "model.llm.weights" if part == LLM_PART else f"model.{part}weights"
        if all(".encoder.ln." in name for name in odd):  # it may come from elsewhere than the ViT
            key = f"model.{part.removesuffix('encoder.')}init"
        name = facts_of_settings(trained_settings(metadata)).get(key)
        there = f" (there {name})" if name else ""
        return (
            f"{source} was trained with other frozen weights than {key} gives here: "
            f"{', '.join(odd[:3])}{' ...' if len(odd) > 3 else ''} differ; set {key} to those of "
            f"the training{there}, or train again"
        )

    def _check_encoders(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Refuses a checkpoint that was trained with other encoders, where it brings them along."""
        own = {name: v for name, v in self.state_dict().items() if ".encoder.vit." in name}
        brought = {**tensors, **authors_sam_weights(tensors, SAM_ENCODER)}
        shared = [name for name in own if name in brought]
        odd = [n for n in shared if _are_others(brought[n], own[n], bool(RESIZED.search(n)))]
        if odd:
            branch = odd[0].split(".")[1]
            weights = "this file" if odd[0] in tensors else "those that it was trained with"
            raise WeightsError(
                f"{source} brings the {branch.upper()} encoder that it was trained with, which is "
                f"not the one here ({len(odd)} of {len(shared)} tensors differ); set "
                f"model.branches.{branch}.encoder.weights to {weights}"
            )

    def checkpoint_metadata(self) -> dict[str, str]:
        """Returns what identifies the model in a checkpoint's header."""
        return {
            "arch": str(self.settings.get("arch")),
            MODEL: json.dumps(self.settings),
            FROZEN: json.dumps(self._held_marks or marks_of(self, self._frozen_parts())),
        }

    def hold_frozen_marks(self) -> None:
        """Takes the marks of the frozen networks now, before a process has only a share of them."""
        self._held_marks = marks_of(self, self._frozen_parts())

    def _frozen_parts(self) -> list[str]:
        """Returns how the names of frozen networks begin; those with random weights have none."""
        branches = self.settings.get("branches") or {}
        parts = [
            f"branches.{name}.encoder."
            for name in self.branches
            if ((branches.get(name) or {}).get("encoder") or {}).get("weights")
        ]
        return [*parts, LLM_PART]

    def dropped_branch_keys(self) -> dict[str, str]:
        """Returns patterns of checkpoint keys of branches that this model leaves out, with why."""
        return {
            rf"^branches\.{name}\.": f"branch {name} is null in the configuration"
            for name in ("clip", "sam")
            if name not in self.branches
        }

    def load_checkpoint(self, url_or_filename: str) -> None:
        """Loads a trained model.

        Args:
            url_or_filename: Checkpoint file, of ours or with the names of BLIP-2 or of the authors'
                code; or a run directory, or a folder of runs (newest run), or an address.

        Raises:
            WeightsError: If it is of another model, a key cannot be explained, or it was trained
                with other settings or frozen networks than this model has.
        """
        path = find_checkpoint(url_or_filename)
        checkpoint = read_any_checkpoint(path)
        arch = checkpoint.metadata.get("arch")
        wrong = arch_problem(path, arch, self.settings.get("arch"), "finetuned")
        if wrong is not None:
            raise WeightsError(wrong)
        self._load_any(checkpoint, str(path), ExpectedKeys(unused=self.dropped_branch_keys()))
