"""What both registered models share: branches, views, freezing, BLIP-2's names.

Their checkpoints are the business of `checkpoint_loading`.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar, cast

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from lavis_msmedcap.common.distributed import gather_objects, get_local_rank, is_distributed
from lavis_msmedcap.common.errors import ConfigError, WeightsError
from lavis_msmedcap.imaging.authors_view import authors_sam_view
from lavis_msmedcap.imaging.views import (
    normalize_clip,
    normalize_sam,
    unpack_views,
    views_from_clip_normalized,
)
from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.build import unmet_requirements
from lavis_msmedcap.models.checkpoint_check import checkpoint_key, checkpoint_problems
from lavis_msmedcap.models.checkpoint_loading import CheckpointedModel
from lavis_msmedcap.models.encoders.freeze import is_frozen
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds
from lavis_msmedcap.models.feature_cache import FeatureCache
from lavis_msmedcap.models.lora import MARK
from lavis_msmedcap.models.precision import frozen_products
from lavis_msmedcap.models.starting_points import starting_problems
from lavis_msmedcap.models.weight_files import Need, fetch, is_url, problems
from lavis_msmedcap.models.weights import trainable_parameters

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

NORM_CURE = "; for this layer norm set model.branches.clip.encoder.freeze_ln=false"

EXPECTED_IMAGE = (
    "the packed views of msmedcap_image_eval, uint8 (B, n), or a CLIP-normalised float tensor "
    "(B, 3, H, W)"
)
IMAGE_CURE = (
    "vis['eval'](picture).unsqueeze(0) makes it of one picture, torch.stack of several, with vis "
    "from load_model_and_preprocess"
)
FUSED = "fused"  # in the place of a branch name: all branches together

logger = logging.getLogger(__name__)


def require(samples: Any, keys: Collection[str], what: str) -> None:
    """Checks that samples hold what a call needs.

    Raises:
        ValueError: Naming the call and the first key that is absent or None, or what is not a
            tensor in the place of the image.
    """
    if not isinstance(samples, Mapping):
        raise ValueError(
            f"{what} needs samples, a dictionary such as {{'image': ...}}, and got "
            f"{type(samples).__name__}; {IMAGE_CURE}"
        )
    absent = [key for key in keys if samples.get(key) is None]
    if absent:
        cure = f", {EXPECTED_IMAGE}; {IMAGE_CURE}" if absent[0] == "image" else ""
        raise ValueError(f"{what} needs samples[{absent[0]!r}]{cure}")
    if "image" in keys:
        require_tensor(samples["image"])


def require_tensor(image: Any) -> None:
    """Checks that an image is a tensor.

    Raises:
        ValueError: Saying what it is, what was expected, and what makes that.
    """
    if not isinstance(image, Tensor):
        raise ValueError(
            f"image is of type {type(image).__name__}; expected {EXPECTED_IMAGE}; {IMAGE_CURE}"
        )


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


class DualBranchModel(CheckpointedModel):
    """Base of both models.

    Args:
        branches: One or two branches by name, in the order of the visual prefix.
        settings: The ``model:`` section, kept for checkpoints.
    """

    NAME: ClassVar[str]  # in LAVIS' registry
    DEFAULT_MODEL_TYPE = "demo"
    STAGE: ClassVar[int]

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

    def _views(self, image: Tensor, names: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns per branch the normalised view and the image's size inside it."""
        if image.dim() == 4 and image.is_floating_point():
            return self._views_of_blip2_image(image, names)
        if image.dim() != 2:
            raise ValueError(
                f"image has shape {tuple(image.shape)} and dtype {image.dtype}; expected "
                f"{EXPECTED_IMAGE}; {IMAGE_CURE}"
            )
        packed = unpack_views(image)
        views = {}
        if "clip" in names:
            views["clip"] = (normalize_clip(packed.clip), packed.valid_sizes)
        if "sam" in names and self._sam_input == "authors":
            # normalised on the CPU: a GPU divides with another last bit, which the wrap would show
            clip = normalize_clip(packed.clip.cpu())
            sam, valid_sizes = authors_sam_view(clip, packed.sam.shape[-1])
            views["sam"] = (sam.to(image.device), valid_sizes.to(image.device))
        elif "sam" in names:
            views["sam"] = (normalize_sam(packed.sam, packed.valid_sizes), packed.valid_sizes)
        return views

    @property
    def _sam_input(self) -> str:
        """``raw`` or ``authors``; see `SamEncoder`."""
        return str(self.branch("sam").encoder.input)

    def _views_of_blip2_image(
        self, image: Tensor, names: list[str]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        sizes = {name: self.branch(name).encoder.image_size for name in names}
        as_authors = "sam" in names and self._sam_input == "authors"
        if "sam" in names and not as_authors and not self._warned_of_missing_detail:
            self._warned_of_missing_detail = True
            logger.warning(
                "image is a CLIP-normalised tensor of %d x %d pixels: the SAM branch sees it "
                "enlarged, without the detail of the file. Use the msmedcap_image_eval processor.",
                *image.shape[-2:],
            )
        clip, sam, valid_sizes = views_from_clip_normalized(
            image, sizes.get("clip", image.shape[-1]), sizes.get("sam", image.shape[-1])
        )
        by_name = {"clip": (clip, valid_sizes), "sam": (sam, valid_sizes)}
        if as_authors:
            by_name["sam"] = authors_sam_view(image, sizes["sam"])
        return {name: by_name[name] for name in names}

    # --- training ---------------------------------------------------------------------------------

    def audit_trainable(self) -> dict[str, int]:
        """Checks that what is trainable is what the paper's rule says, no more and no less.

        Returns:
            Number of trainable values by ``branch.part``.

        Raises:
            WeightsError: If something else than Q-Formers, queries and linear layers is trainable
                (the layer norm behind the ViT and LoRA only where ``freeze_ln: false`` and
                ``llm.lora`` ask for them), or one of those is frozen.
        """
        counts: dict[str, int] = {}
        for name, parameter in self.named_parameters():
            wanted = self._has_to_train(name)
            if parameter.requires_grad and not wanted:
                cure = NORM_CURE if ".encoder.ln." in name else ""
                raise WeightsError(
                    f"{name} is trainable; only Q-Formers, queries and linears may be{cure}"
                )
            if wanted and not parameter.requires_grad:
                raise WeightsError(
                    f"{name} is frozen, but Q-Formers, queries and linears have to train; call its "
                    "requires_grad_(True). To keep a branch of stage 1 as it is, set "
                    "model.branches.<name>.train_on=[]"
                )
            if wanted:
                branch, part = name.split(".")[1:3]
                key = "llm.lora" if MARK in name else f"{branch}.{part}"
                counts[key] = counts.get(key, 0) + parameter.numel()
        return counts

    def _has_to_train(self, name: str) -> bool:
        """Tells whether the paper's rule and the settings make a parameter train."""
        if MARK in name:
            return bool((self.settings.get("llm") or {}).get("lora"))
        if not name.startswith("branches."):
            return False
        _, branch, part = name.split(".", 2)
        if not part.startswith("encoder.ln."):
            return part.startswith(TRAINABLE_PARTS)
        settings = (self.settings.get("branches") or {}).get(branch) or {}
        return not (settings.get("encoder") or {}).get("freeze_ln", True)

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
        """Checks before anything is built that all files are there, and downloads what may be.

        Downloads need ``offline: false``. In a process group the first rank of each machine
        downloads and the others wait for it.

        Raises:
            ConfigError: Naming every file that is not there and cannot be downloaded.
            WeightsError: On every rank, if a download failed on one.
        """
        missing = cls.missing_inputs(settings)
        if missing:
            raise ConfigError(missing, f"{cls.NAME} ({settings.get('model_type')})")
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
