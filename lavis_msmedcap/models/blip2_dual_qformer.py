"""Stage 1, mixed semantic pre-training: ITC + ITM + ITG per branch (paper 2.2).

Dimensions: B batch, N image tokens, Q query tokens, L text tokens, C encoder width,
D Q-Former width, E ITC width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from lavis.common.registry import registry
from lavis.models.blip_models.blip_outputs import BlipOutputFeatures
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchEncoding, BertTokenizer

from lavis_msmedcap.common.distributed import global_max
from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.models.base import DualBranchModel, plain
from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.build import (
    active_branches,
    build_branch,
    load_text_tokenizer,
    missing_weights,
    prepare_qformers,
    qformer_size,
    unmet_requirements,
)

OBJECTIVES = ("itc", "itm", "lm")


@registry.register_model("blip2_dual_qformer")
class Blip2DualQformer(DualBranchModel):
    """Stage-1 model and feature extractor with one Q-Former per frozen encoder.

    Supported model types:
        - demo: miniature backbones that ship with the package
        - paper: EVA-CLIP ViT-g and SAM ViT-B (weights from files named in the configuration)

    Usage:
        >>> from lavis.models import load_model
        >>> model = load_model("blip2_dual_qformer", "demo")

    Args:
        branches: Branches by name.
        train_on: Branch name to the domains that its Q-Former trains on (the recipe).
        tokenizer: WordPiece tokenizer with [DEC].
        max_txt_len: Longest text in tokens; longer ones are cut.
        loss_weights: Weights of ``itc``, ``itm`` and ``lm`` in the loss.
        settings: The ``model:`` section, kept for checkpoints.
    """

    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]] = {
        model_type: str(package_path(f"configs/models/blip2_dual_qformer_{model_type}.yaml"))
        for model_type in ("demo", "paper")
    }

    def __init__(
        self,
        branches: Mapping[str, QFormerBranch],
        train_on: Mapping[str, Sequence[str]],
        tokenizer: BertTokenizer,
        max_txt_len: int = 32,
        loss_weights: Mapping[str, float] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(branches, settings or {})
        self.train_on = {name: tuple(train_on[name]) for name in branches}
        self.tokenizer = tokenizer
        self.max_txt_len = max_txt_len
        self.loss_weights = dict.fromkeys(OBJECTIVES, 1.0) | dict(loss_weights or {})

    @property
    def train_domains(self) -> set[str]:
        """Domains that at least one branch trains on."""
        return {domain for domains in self.train_on.values() for domain in domains}

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Computes the losses of every branch on the samples of its domains.

        Args:
            samples: ``image`` (see `encode_image`), ``text_input`` list of B strings, and
                ``domain`` list of B domain names (absent: all branches train on all samples).

        Returns:
            ``loss`` and LAVIS' ``loss_itc``, ``loss_itm``, ``loss_lm`` (weighted sum, and plain
            sums over branches), ``logs`` (detached scalars per branch and objective) and
            ``per_sample`` (detached (B,), nan where a sample took no part).
        """
        rows = {name: self._rows(name, samples) for name in self.branches}
        active = [name for name, index in rows.items() if len(index)]
        if not active:
            raise ValueError(
                f"no branch trains on domain {sorted(set(samples['domain']))}; "
                f"train_on is {self.train_on}"
            )
        text = self._tokenize(samples["text_input"])
        images = self.encode_image(samples["image"], active)
        totals: dict[str, Tensor] = {}
        logs: dict[str, Tensor] = {}
        per_sample: dict[str, Tensor] = {}
        for name in active:
            index = rows[name].to(self.device)
            result = self.branch(name).stage1_losses(
                images[name].rows(index),
                text.input_ids[index],
                text.attention_mask[index],
                self.tokenizer.pad_token_id,
                self.tokenizer.bos_token_id,
            )
            for objective, loss in result.losses.items():
                key = f"{name}/loss_{objective}"
                totals[objective] = totals.get(objective, 0.0) + loss
                logs[key] = loss.detach()
                values = loss.new_full((len(samples["text_input"]),), float("nan"))
                values[index] = result.per_sample[objective].to(values.dtype)
                per_sample[key] = values
        loss = torch.stack([self.loss_weights[k] * v for k, v in totals.items()]).sum()
        named = {f"loss_{objective}": value for objective, value in totals.items()}
        return {"loss": loss, **named, "logs": logs, "per_sample": per_sample}

    def _rows(self, name: str, samples: Mapping[str, Any]) -> Tensor:
        """Returns the indices (K,) of the samples that a branch trains on."""
        count = len(samples["text_input"])
        domains = samples.get("domain")
        if domains is None:
            return torch.arange(count)
        wanted = self.train_on[name]
        return torch.tensor([i for i, domain in enumerate(domains) if domain in wanted]).long()

    def _tokenize(self, texts: Sequence[str]) -> BatchEncoding:
        """Tokenises B texts, padded to the longest of the global batch."""
        tokens = self.tokenizer(
            list(texts),
            padding="longest",
            truncation=True,
            max_length=self.max_txt_len,
            return_tensors="pt",
        ).to(self.device)
        length = tokens.input_ids.shape[1]
        extra = global_max(length, self.device) - length
        if extra:
            pad = self.tokenizer.pad_token_id
            tokens["input_ids"] = F.pad(tokens.input_ids, (0, extra), value=pad)
            tokens["attention_mask"] = F.pad(tokens.attention_mask, (0, extra))
        return tokens

    @torch.no_grad()
    def extract_features(
        self, samples: Mapping[str, Any], mode: str = "multimodal", branch: str | None = None
    ) -> BlipOutputFeatures:
        """Extracts features as BLIP-2's feature extractor does.

        Args:
            samples: ``image`` and/or ``text_input``.
            mode: ``image``: query output and its projection; ``text``: text output and its
                projection; ``multimodal``: query output that knows the text.
            branch: ``clip`` or ``sam``; by default CLIP where present.

        Returns:
            LAVIS' feature container: ``image_embeds`` (B, Q, D) with ``image_embeds_proj``
            (B, Q, E), ``text_embeds`` (B, L, D) with ``text_embeds_proj`` (B, L, E), or
            ``multimodal_embeds`` (B, Q, D).

        Raises:
            ValueError: If the mode is unknown, or an input that it needs is absent.
        """
        needed = {"image": ["image"], "text": ["text_input"], "multimodal": ["image", "text_input"]}
        if mode not in needed:
            raise ValueError(f"mode is {mode!r}; expected one of {', '.join(needed)}")
        absent = [key for key in needed[mode] if samples.get(key) is None]
        if absent:
            raise ValueError(f"mode {mode!r} needs samples[{absent[0]!r}]")
        name = branch or self.primary
        part = self.branch(name)
        features: dict[str, Tensor] = {}
        if mode == "image":
            query_output = part.query(self.encode_image(samples["image"], [name])[name])
            features["image_embeds"] = query_output.last_hidden_state
            features["image_embeds_proj"] = part.image_feats(features["image_embeds"])
        else:
            text = self._tokenize(samples["text_input"])
            ids, atts = text.input_ids, text.attention_mask
            if mode == "text":
                features["text_embeds"] = part.encode_text(ids, atts)
                projected = part.text_proj(features["text_embeds"])
                features["text_embeds_proj"] = F.normalize(projected, dim=-1)
            else:
                image = self.encode_image(samples["image"], [name])[name]
                features["multimodal_embeds"] = part.multimodal(image, ids, atts)
        return BlipOutputFeatures(**features)

    @classmethod
    def from_config(cls, cfg: Any) -> Blip2DualQformer:
        """Builds the model from the ``model:`` section of a configuration."""
        settings = plain(cfg)
        cls.require_inputs(settings)
        tokenizer = load_text_tokenizer(settings["qformer"]["tokenizer"])
        size = qformer_size(settings["qformer"], len(tokenizer))
        chosen = active_branches(settings["branches"])
        branches = {
            name: build_branch(name, branch, size, settings["embed_dim"])
            for name, branch in chosen.items()
        }
        prepare_qformers(branches, settings["qformer"])
        model = cls(
            branches,
            {name: branch["train_on"] for name, branch in chosen.items()},
            tokenizer,
            settings["max_txt_len"],
            settings.get("loss_weights"),
            settings,
        )
        if settings.get("load_finetuned"):
            model.load_checkpoint(settings["finetuned"])
        return model

    @classmethod
    def missing_inputs(cls, model_cfg: Mapping[str, Any]) -> list[str]:
        """Lists the weights files that a configuration names and that are not there."""
        settings = plain(model_cfg)
        return unmet_requirements(settings) + missing_weights(settings, stage=1)
