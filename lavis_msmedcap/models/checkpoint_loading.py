"""How both models keep and load checkpoints: every key and every setting accounted for."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from lavis.models.base_model import BaseModel
from torch import Tensor, nn

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.checkpoint_check import (
    EMPTY_BRANCH,
    STAGE1_ARCH,
    arch_problem,
    dropped_branch_problem,
)
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
from lavis_msmedcap.models.checkpoints import (
    Checkpoint,
    find_checkpoint,
    read_any_checkpoint,
    read_notes,
)
from lavis_msmedcap.models.encoders.sam_weights import authors_sam_weights
from lavis_msmedcap.models.frozen_marks import (
    FROZEN,
    RESIZED,
    Marks,
    marks_of,
    odd_marks,
    read_marks,
)
from lavis_msmedcap.models.starting_points import (
    starting_points,
    told_origins,
    untrained_branches,
)
from lavis_msmedcap.models.vocabularies import (
    VOCABULARIES,
    Vocabulary,
    fingerprint,
    read_fingerprints,
)
from lavis_msmedcap.models.weight_files import locate
from lavis_msmedcap.models.weights import (
    USUAL_CURE,
    ExpectedKeys,
    load_strict,
    trainable_parameters,
)

MODEL = "model"  # entry of a checkpoint's header: the settings
LLM_PART = "opt_model."
SAM_ENCODER = "branches.sam.encoder."
LAYER_NORM = ".encoder.ln."  # in the names of the layer norm behind a ViT

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


def _warn_of_untrained(metadata: Mapping[str, str], source: str, branches: Collection[str]) -> None:
    """Says which branches of a stage 1 of ours were saved with random weights."""
    if metadata.get("arch") != STAGE1_ARCH:
        return
    for name in untrained_branches(trained_settings(metadata)):
        if name in branches:
            logger.warning(
                "branch %s of %s was NEVER TRAINED: its training had model.branches.%s.train_on [] "
                "and no checkpoint as its init. Its weights are random and what comes of it means "
                "nothing until it is trained; take another checkpoint, or drop the branch "
                "(model.branches.%s=null)",
                name,
                source,
                name,
                name,
            )


class CheckpointedModel(BaseModel):
    """A model of branches whose trained part is kept in checkpoints.

    Args:
        branches: One or two branches by name, in the order of the visual prefix.
        settings: The ``model:`` section, kept for checkpoints.

    Attributes:
        loaded_from: The trained model that `load_checkpoint` loaded, with its epoch if it is known.
        starts_from: The file of trained weights that it has begun with, this one or that of stage
            1; empty if there is none.
    """

    # patterns of keys that files of BLIP-2 and of the authors may hold beyond ours, with why
    FOREIGN_EXTRAS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, branches: Mapping[str, QFormerBranch], settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.loaded_from: str | None = None
        self.starts_from = ""
        self.branches = nn.ModuleDict(branches)
        self.settings = dict(settings)
        self._brought: set[str] = set()  # frozen parameters that came with a checkpoint
        self._held_marks: Marks | None = None

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Returns what a checkpoint holds.

        These are the trainable parameters, and the frozen layer norm behind a ViT where it came
        with a checkpoint: no file that the configuration names as the encoder's gives it again.
        """
        kept = {
            name: p
            for name, p in self.named_parameters()
            if p.requires_grad or name in self._brought
        }
        return {name: p.detach() for name, p in kept.items()}

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
        trainable = trainable_parameters(self)
        norms = {
            name: p
            for name, p in self.named_parameters()
            if LAYER_NORM in name and (kind != OURS or name in state_dict)
        }
        targets = {name: p.detach() for name, p in {**trainable, **norms}.items()}
        absent = [b for b in self.branches if not any(f"branches.{b}." in k for k in state_dict)]
        cure = EMPTY_BRANCH.format(absent[0]) if absent else USUAL_CURE
        cure += AUTHORS_CURE if kind == AUTHORS else ""
        report = load_strict(targets, state_dict, source, expected, cure)
        self._brought.update(norms)
        for line in report.lines():
            logger.info(line)

    def _load_any(self, checkpoint: Checkpoint, source: str, expected: ExpectedKeys) -> None:
        """Loads a checkpoint of any kind."""
        _warn_of_silence(checkpoint, source)
        _warn_of_untrained(checkpoint.metadata, source, list(self.branches))
        self._check_settings(checkpoint, source)
        self._check_vocabularies(checkpoint.metadata, source)
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

    def tokenizers(self) -> dict[str, Vocabulary]:
        """Returns by configuration key the tokenizers whose words the trained part depends on."""
        return {}

    def _check_vocabularies(self, metadata: Mapping[str, str], source: str) -> None:
        """Refuses a checkpoint that was trained with other words."""
        theirs = read_fingerprints(metadata.get(VOCABULARIES))
        settings = trained_settings(metadata)
        for key, tokenizer in self.tokenizers().items():
            if theirs.get(key, fingerprint(tokenizer)) != fingerprint(tokenizer):
                section = settings.get(key.split(".")[1]) or {}
                name = section.get("tokenizer")
                raise WeightsError(
                    f"{source} was trained with another vocabulary than that of {key} here; set "
                    f"{key} to the tokenizer of the training{f' (there {name})' if name else ''}, "
                    "or train again"
                )

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
        settings = trained_settings(metadata)
        name = facts_of_settings(settings).get(key)
        cure = "those of the training" + (f" (there {name})" if name else "")
        if all(LAYER_NORM in name for name in odd):  # it may come from elsewhere than the ViT
            key = f"model.{part.removesuffix('encoder.')}init"
            cure = f"the file that has that layer norm ({told_origins(settings)})"
        return (
            f"{source} was trained with other frozen weights than {key} gives here: "
            f"{', '.join(odd[:3])}{' ...' if len(odd) > 3 else ''} differ; set {key} to {cure}, or "
            "train again"
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

    def check_starting_points(self) -> None:
        """Compares the files that branches of stage 1 start from with what their headers tell.

        Raises:
            WeightsError: If one was trained with other words.
        """
        for name, point in starting_points(self.settings).items():
            notes = {} if point.file is None else read_notes(locate(point.file))
            self._check_vocabularies(notes, str(point.file))
            _warn_of_untrained(notes, str(point.file), [name])

    def warn_of_blank_norm(self) -> None:
        """Says that no file gave the frozen layer norm behind the CLIP branch's ViT.

        What was trained behind such a one has to keep it, so a loaded model has nothing to say.
        """
        parts = tuple(self._frozen_parts())
        norms = {
            name: p
            for name, p in self.named_parameters()
            if LAYER_NORM in name and name.startswith(parts) and not p.requires_grad
        }
        blank = all(bool((p == float(n.endswith("weight"))).all()) for n, p in norms.items())
        if norms and blank and self.loaded_from is None:
            logger.warning(
                "no file gave the layer norm behind the CLIP branch's ViT, which is frozen: its "
                "weights stay 1 and its biases 0. BLIP-2's comes with "
                "model.branches.clip.init=blip2; or train it with "
                "model.branches.clip.encoder.freeze_ln=false"
            )

    def checkpoint_metadata(self) -> dict[str, str]:
        """Returns what identifies the model in a checkpoint's header."""
        return {
            "arch": str(self.settings.get("arch")),
            MODEL: json.dumps(self.settings),
            FROZEN: json.dumps(self._held_marks or marks_of(self, self._frozen_parts())),
            VOCABULARIES: json.dumps({k: fingerprint(v) for k, v in self.tokenizers().items()}),
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
                code; or a run directory, or a folder of runs (newest finished run), or an address.

        Raises:
            WeightsError: If it is of another model, a key cannot be explained, or it was trained
                with other settings, frozen networks or branches than this model has (stage 1
                may leave a branch out).
        """
        path = find_checkpoint(url_or_filename, logger.warning)
        checkpoint = read_any_checkpoint(path)
        arch = checkpoint.metadata.get("arch")
        wrong = arch_problem(path, arch, self.settings.get("arch"), "finetuned")
        wrong = wrong or dropped_branch_problem(
            str(path), checkpoint.tensors, checkpoint.metadata, self.settings
        )
        if wrong is not None:
            raise WeightsError(wrong)
        self._load_any(checkpoint, str(path), ExpectedKeys(unused=self.dropped_branch_keys()))
        epoch = checkpoint.metadata.get("epoch")
        self.loaded_from = f"{path} of epoch {epoch}" if epoch else str(path)
        self.starts_from = str(path)
