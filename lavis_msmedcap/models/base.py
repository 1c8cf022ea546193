"""What both registered models share: branches, views, freezing, checkpoints, BLIP-2's names."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from lavis.models.base_model import BaseModel
from omegaconf import OmegaConf
from torch import Tensor, nn

from lavis_msmedcap.common.errors import ConfigError, WeightsError
from lavis_msmedcap.imaging.views import (
    normalize_clip,
    normalize_sam,
    unpack_views,
    views_from_clip_normalized,
)
from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.checkpoints import find_checkpoint, read_checkpoint
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds
from lavis_msmedcap.models.weights import ExpectedKeys, load_strict, trainable_parameters

# the paper's rule: only Q-Formers, queries and linear layers train (Fig. 2)
TRAINABLE_PARTS = (
    "qformer.",
    "query_tokens",
    "vision_proj.",
    "text_proj.",
    "itm_head.",
    "temp",
    "llm_proj.",
)

FUSED = "fused"  # in the place of a branch name: all branches together

logger = logging.getLogger(__name__)


def require(samples: Mapping[str, Any], keys: Iterable[str], what: str) -> None:
    """Checks that samples hold what a call needs.

    Raises:
        ValueError: Naming the call and the first key that is absent or None.
    """
    absent = [key for key in keys if samples.get(key) is None]
    if absent:
        raise ValueError(f"{what} needs samples[{absent[0]!r}]")


def texts_of(samples: Mapping[str, Any]) -> list[str]:
    """Returns ``text_input`` as a list; a single string is a batch of one, as in LAVIS' examples.

    Raises:
        ValueError: If there are images, but not one per text.
    """
    given = samples["text_input"]
    texts = [given] if isinstance(given, str) else list(given)
    image = samples.get("image")
    if image is not None and len(image) != len(texts):
        raise ValueError(
            f"samples['text_input'] has {len(texts)} texts for {len(image)} images; "
            "expected one text per image"
        )
    return texts


def plain(config: Any) -> dict[str, Any]:
    """Turns an OmegaConf node into plain dictionaries and lists, interpolations resolved."""
    if OmegaConf.is_config(config):
        return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    return dict(config)


class DualBranchModel(BaseModel):
    """Base of both models.

    Args:
        branches: One or two branches by name, in the order of the visual prefix.
        settings: The ``model:`` section, kept for checkpoints.
    """

    DEFAULT_MODEL_TYPE = "demo"

    def __init__(self, branches: Mapping[str, QFormerBranch], settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.settings = dict(settings)
        self._warned_of_missing_detail = False

    def branch(self, name: str) -> QFormerBranch:
        """Returns one branch by name."""
        return cast(QFormerBranch, self.branches[name])

    @property
    def primary(self) -> str:
        """Name of the branch that stands for BLIP-2's only one: CLIP where present."""
        return "clip" if "clip" in self.branches else next(iter(self.branches))

    def chosen_branches(self, branch: str | None, default: str) -> list[str]:
        """Returns the names of the branches that a caller asks for, in the order CLIP, SAM.

        Args:
            branch: Name of a branch, ``fused`` for all of them, or None.
            default: What None means.

        Raises:
            ValueError: If the model has no such branch.
        """
        wanted = branch or default
        if wanted == FUSED:
            return list(self.branches)
        if wanted not in self.branches:
            known = ", ".join([*self.branches, FUSED])
            raise ValueError(f"branch is {wanted!r}; this model has: {known}")
        return [wanted]

    # --- BLIP-2's names, for code written for BLIP-2 -------------------------------------------

    @property
    def _primary(self) -> QFormerBranch:
        return self.branch(self.primary)

    @property
    def Qformer(self) -> nn.Module:  # noqa: N802
        """Q-Former of the CLIP branch."""
        return self._primary.qformer

    @property
    def query_tokens(self) -> nn.Parameter:
        """Query tokens (1, Q, D) of the CLIP branch."""
        return self._primary.query_tokens

    @property
    def visual_encoder(self) -> nn.Module:
        """ViT of the CLIP branch."""
        return cast(nn.Module, self._primary.encoder.vit)

    @property
    def ln_vision(self) -> nn.Module:
        """Layer norm behind the CLIP branch's ViT."""
        return cast(nn.Module, self._primary.encoder.ln)

    # --- images ---------------------------------------------------------------------------------

    def encode_image(
        self, image: Tensor, names: Iterable[str] | None = None
    ) -> dict[str, ImageEmbeds]:
        """Runs the frozen encoders.

        Args:
            image: uint8 (B, n) packed views of our processors, or float (B, 3, H, W) normalised
                with CLIP's mean and standard deviation, as BLIP-2's processors make it.
            names: Branches to run; all by default.

        Returns:
            Tokens and mask by branch.

        Raises:
            ValueError: If ``image`` is neither.
        """
        names = list(self.branches) if names is None else list(names)
        views = self._views(image.to(self.device), names)
        embeds = {}
        for name in names:
            branch = self.branch(name)
            trainable = any(p.requires_grad for p in branch.encoder.parameters())
            with torch.set_grad_enabled(trainable and torch.is_grad_enabled()):
                embeds[name] = branch.encode(*views[name])
        return embeds

    def _views(self, image: Tensor, names: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns per branch the normalised view and the image's size inside it."""
        if image.dim() == 4 and image.is_floating_point():
            return self._views_of_blip2_image(image, names)
        if image.dim() != 2:
            raise ValueError(
                f"image has shape {tuple(image.shape)} and dtype {image.dtype}; expected the "
                "packed views of msmedcap_image_eval, uint8 (B, n), or a CLIP-normalised float "
                "tensor (B, 3, H, W)"
            )
        packed = unpack_views(image)
        views = {}
        if "clip" in names:
            views["clip"] = (normalize_clip(packed.clip), packed.valid_sizes)
        if "sam" in names:
            views["sam"] = (normalize_sam(packed.sam, packed.valid_sizes), packed.valid_sizes)
        return views

    def _views_of_blip2_image(
        self, image: Tensor, names: list[str]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        sizes = {name: self.branch(name).encoder.image_size for name in names}
        if "sam" in names and not self._warned_of_missing_detail:
            self._warned_of_missing_detail = True
            logger.warning(
                "image is a CLIP-normalised tensor of %d x %d pixels: the SAM branch sees it "
                "enlarged, without the detail of the file. Use the msmedcap_image_eval processor.",
                *image.shape[-2:],
            )
        clip, sam, valid_sizes = views_from_clip_normalized(
            image, sizes.get("clip", image.shape[-1]), sizes.get("sam", image.shape[-1])
        )
        by_name = {"clip": clip, "sam": sam}
        return {name: (by_name[name], valid_sizes) for name in names}

    # --- training ---------------------------------------------------------------------------------

    def audit_trainable(self) -> dict[str, int]:
        """Checks the paper's freezing rule.

        Returns:
            Number of trainable values by ``branch.part``.

        Raises:
            WeightsError: If something else than Q-Formers, queries and linear layers is trainable
                (the layer norm behind the ViT only where ``freeze_ln: false`` asks for it).
        """
        counts: dict[str, int] = {}
        for name, parameter in trainable_parameters(self).items():
            part = name.split(".", 2)[-1]
            if not part.startswith((*TRAINABLE_PARTS, "encoder.ln.")):
                raise WeightsError(
                    f"{name} is trainable; only Q-Formers, queries and linears may be"
                )
            key = ".".join([name.split(".")[1], part.split(".")[0]])
            counts[key] = counts.get(key, 0) + parameter.numel()
        return counts

    def describe_trainable(self) -> str:
        """Returns the trainable set as a table, after `audit_trainable`."""
        counts = self.audit_trainable()
        total = sum(p.numel() for p in self.parameters())
        lines = [f"  {name:<24}{count:>14,}" for name, count in counts.items()]
        head = f"trainable: {sum(counts.values()):,} of {total:,} parameters"
        return "\n".join([head, *lines])

    def get_optimizer_params(
        self, weight_decay: float, lr_scale: float = 1.0
    ) -> list[dict[str, Any]]:
        """Returns optimizer groups: matrices with weight decay, vectors and biases without.

        ``lr_scale`` is LAVIS' layer decay of a trainable ViT; there is none here.
        """
        if lr_scale != 1.0:
            raise ValueError("lr_scale is for a trainable ViT; the encoders here are frozen")
        groups: list[dict[str, Any]] = [
            {"params": [], "weight_decay": weight_decay},
            {"params": [], "weight_decay": 0.0},
        ]
        for parameter in trainable_parameters(self).values():
            groups[parameter.ndim < 2]["params"].append(parameter)
        return [group for group in groups if group["params"]]

    # --- files ------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def missing_inputs(cls, model_cfg: Mapping[str, Any]) -> list[str]:
        """Lists the weights files that a configuration names and that are not there."""

    @classmethod
    def require_inputs(cls, settings: Mapping[str, Any]) -> None:
        """Checks before anything is built that all files are there.

        Raises:
            ConfigError: Naming every file that is not.
        """
        problems = cls.missing_inputs(settings)
        if problems:
            raise ConfigError(problems, f"{settings.get('arch')} ({settings.get('model_type')})")

    # --- checkpoints ------------------------------------------------------------------------------

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Returns what a checkpoint holds: the trainable parameters."""
        return {name: p.detach() for name, p in trainable_parameters(self).items()}

    def load_trainable_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        source: str = "state dict",
        expected: ExpectedKeys | None = None,
    ) -> None:
        """Loads a checkpoint's tensors; every key must be explained.

        Raises:
            WeightsError: Naming missing, unexpected, wrongly shaped and non-finite tensors.
        """
        report = load_strict(self.trainable_state_dict(), state_dict, source, expected)
        for line in report.lines():
            logger.info(line)

    def checkpoint_metadata(self) -> dict[str, str]:
        """Returns what identifies the model in a checkpoint's header."""
        return {"arch": str(self.settings.get("arch")), "model": json.dumps(self.settings)}

    def dropped_branch_keys(self) -> dict[str, str]:
        """Returns patterns of checkpoint keys of branches that this model leaves out, with why."""
        return {
            rf"^branches\.{name}\.": f"branch {name} is null in the configuration"
            for name in ("clip", "sam")
            if name not in self.branches
        }

    def load_checkpoint(self, url_or_filename: str) -> None:
        """Loads one of our checkpoints: file, run directory, or folder of runs (newest run)."""
        path = find_checkpoint(url_or_filename)
        state_dict, metadata = read_checkpoint(path)
        arch = metadata.get("arch")
        if arch != self.settings.get("arch"):
            raise WeightsError(
                f"{path} holds a {arch}, this model is a {self.settings.get('arch')}"
                + (
                    "; use it as model.stage1"
                    if arch == "blip2_dual_qformer"
                    else "; choose a checkpoint of the same model"
                )
            )
        self.load_trainable_state_dict(
            state_dict, str(path), ExpectedKeys(unused=self.dropped_branch_keys())
        )
