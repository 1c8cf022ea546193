"""What both registered models share: branches, views, freezing, BLIP-2's names.

Their checkpoints are the business of `checkpoint_loading`.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from lavis_msmedcap.common.config_check import Node, check
from lavis_msmedcap.common.distributed import gather_objects, get_local_rank, is_distributed
from lavis_msmedcap.common.errors import ConfigError, WeightsError
from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.build import unmet_requirements
from lavis_msmedcap.models.checkpoint_check import checkpoint_key, checkpoint_problems
from lavis_msmedcap.models.checkpoint_loading import CheckpointedModel
from lavis_msmedcap.models.encoders.freeze import is_frozen
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds
from lavis_msmedcap.models.feature_cache import FeatureCache
from lavis_msmedcap.models.freezing import (
    audit_trainable,
    describe_trainable,
    optimizer_groups,
)
from lavis_msmedcap.models.precision import frozen_products
from lavis_msmedcap.models.samples import EXPECTED_IMAGE, IMAGE_CURE, require_tensor
from lavis_msmedcap.models.starting_points import starting_problems
from lavis_msmedcap.models.views import SizedView, views_of_blip2_image, views_of_packed
from lavis_msmedcap.models.weight_files import Need, fetch, is_url, problems
from lavis_msmedcap.models.weights import trainable_parameters

FUSED = "fused"  # in the place of a branch name: all branches together

logger = logging.getLogger(__name__)


def plain(config: Any) -> dict[str, Any]:
    """Turns an OmegaConf node into plain dictionaries and lists, interpolations resolved."""
    if OmegaConf.is_config(config):
        return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    return dict(config)


class DualBranchModel(CheckpointedModel):
    """Base of both models.

    Args:
        branches: One or two branches by name, in the order of the visual prefix.
        settings: The ``model:`` section, kept for checkpoints.
    """

    NAME: ClassVar[str]  # in LAVIS' registry
    DEFAULT_MODEL_TYPE = "demo"
    STAGE: ClassVar[int]
    SCHEMA: ClassVar[Mapping[str, Node]]  # of the settings

    def __init__(self, branches: Mapping[str, QFormerBranch], settings: Mapping[str, Any]) -> None:
        super().__init__(branches, settings)
        self._warned_of_missing_detail = False
        self._feature_cache: FeatureCache | None = None

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
        require_tensor(image)
        names = list(self.branches) if names is None else list(names)
        image = image.to(self.device)
        if self._feature_cache is None or image.dim() != 2:
            return self._encode(image, names)
        return {name: self._encode_once(image, name, self._feature_cache) for name in names}

    def keep_features(self, limit_gib: float) -> None:
        """Keeps the output of frozen encoders for images seen again, up to a limit; 0 keeps none.

        Args:
            limit_gib: Most main memory for it, in GiB.
        """
        self._feature_cache = FeatureCache(limit_gib) if limit_gib > 0 else None

    def _encode_once(self, image: Tensor, name: str, cache: FeatureCache) -> ImageEmbeds:
        """Like `_encode` for one branch, but takes what the cache has."""

        def encode(part: Tensor) -> ImageEmbeds:
            return self._encode(part, [name])[name]

        if not is_frozen(self.branch(name).encoder):
            return encode(image)
        return cache.encode(name, image, encode)

    def _encode(self, image: Tensor, names: list[str]) -> dict[str, ImageEmbeds]:
        views = self._views(image, names)
        embeds = {}
        for name in names:
            branch = self.branch(name)
            trainable = any(p.requires_grad for p in branch.encoder.parameters())
            with (
                torch.set_grad_enabled(trainable and torch.is_grad_enabled()),
                # an encoder computes in its own precision: under autocast its weights would be cast
                # anew for every batch, and its features would depend on run.amp
                torch.autocast(self.device.type, enabled=False),
                frozen_products(next(branch.encoder.parameters()).dtype, self.device),
            ):
                embeds[name] = branch.encode(*views[name])
        return embeds

    def _views(self, image: Tensor, names: list[str]) -> dict[str, SizedView]:
        """Returns per branch the normalised view and the image's size inside it."""
        as_authors = "sam" in names and self.branch("sam").encoder.input == "authors"
        if image.dim() == 4 and image.is_floating_point():
            if "sam" in names and not as_authors:
                self._warn_of_missing_detail(image)
            sizes = {name: self.branch(name).encoder.image_size for name in names}
            return views_of_blip2_image(image, sizes, as_authors)
        if image.dim() != 2:
            raise ValueError(
                f"image has shape {tuple(image.shape)} and dtype {image.dtype}; expected "
                f"{EXPECTED_IMAGE}; {IMAGE_CURE}"
            )
        return views_of_packed(image, names, as_authors)

    def _warn_of_missing_detail(self, image: Tensor) -> None:
        """Says once that the SAM branch gets an enlarged CLIP image."""
        if self._warned_of_missing_detail:
            return
        self._warned_of_missing_detail = True
        logger.warning(
            "image is a CLIP-normalised tensor of %d x %d pixels: the SAM branch sees it "
            "enlarged, without the detail of the file. Use the msmedcap_image_eval processor.",
            *image.shape[-2:],
        )

    # --- training ---------------------------------------------------------------------------------

    def audit_trainable(self) -> dict[str, int]:
        """Checks the trainable set against the paper's rule, see `freezing.audit_trainable`."""
        return audit_trainable(self.named_parameters(), self.settings)

    def describe_trainable(self) -> str:
        """Returns the trainable set as a table, after `audit_trainable`."""
        total = sum(p.numel() for p in self.parameters())
        return describe_trainable(self.audit_trainable(), total)

    def get_optimizer_params(
        self, weight_decay: float, lr_scale: float = 1.0
    ) -> list[dict[str, Any]]:
        """Returns optimizer groups: matrices with weight decay, vectors and biases without.

        ``lr_scale`` is LAVIS' layer decay of a trainable ViT; there is none here.
        """
        if lr_scale != 1.0:
            raise ValueError("lr_scale is for a trainable ViT; the encoders here are frozen")
        return optimizer_groups(trainable_parameters(self).values(), weight_decay)

    # --- files ------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def backbone_needs(cls, settings: Mapping[str, Any]) -> list[Need]:
        """Lists the published weights that the ``model:`` section names, in plain containers."""

    @classmethod
    def weight_needs(cls, settings: Mapping[str, Any]) -> list[Need]:
        """Lists all weights that a configuration names, except checkpoints on this machine.

        Those have a search of their own, `find_checkpoint`.
        """
        key = checkpoint_key(settings)
        location = settings.get(key)
        needs = cls.backbone_needs(settings)
        if location and is_url(location):
            needs.append(Need(f"model.{key}", location, "a checkpoint of a training run"))
        return needs

    @classmethod
    def missing_inputs(cls, model_cfg: Mapping[str, Any]) -> list[str]:
        """Lists the files that a configuration names and that cannot be had, each with the cure."""
        settings = plain(model_cfg)
        return [
            *unmet_requirements(settings),
            *starting_problems(settings, cls.STAGE),
            *problems(cls.weight_needs(settings), settings.get("offline", True)),
            *checkpoint_problems(settings),
        ]

    @classmethod
    def prepare_inputs(cls, settings: Mapping[str, Any]) -> None:
        """Checks settings and files before anything is built, and downloads what may be.

        Downloads need ``offline: false``. In a process group the first rank of each machine
        downloads and the others wait for it.

        Raises:
            ConfigError: Naming every key that is unknown or of a wrong value, or else every file
                that is not there and cannot be downloaded.
            WeightsError: On every rank, if a download failed on one.
        """
        wrong = check(settings, cls.SCHEMA, "model") or cls.missing_inputs(settings)
        if wrong:
            raise ConfigError(wrong, f"{cls.NAME} ({settings.get('model_type')})")
        if settings.get("offline", True):
            return
        failures = []
        if get_local_rank() == 0 or not is_distributed():
            try:
                fetch(cls.weight_needs(settings), offline=False)
            except WeightsError as error:
                failures = [str(error)]
        failures = gather_objects(failures)
        if failures:
            raise WeightsError("\n".join(dict.fromkeys(failures)))
