"""Stage 1, mixed semantic pre-training: ITC + ITM + ITG per branch (paper 2.2).

Dimensions: B batch, N image tokens, Q query tokens, L text tokens, C encoder width,
D Q-Former width, E ITC width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch
from lavis.common.registry import registry
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchEncoding, BertTokenizer

from lavis_msmedcap.common.config_check import Node, convert
from lavis_msmedcap.common.distributed import meet
from lavis_msmedcap.models.base import packaged_types, plain
from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.build import (
    active_branches,
    build_branches,
    load_text_tokenizer,
    qformer_size,
    weight_needs,
)
from lavis_msmedcap.models.samples import require
from lavis_msmedcap.models.settings_schema import MODEL_SCHEMAS
from lavis_msmedcap.models.trained_qformers import TrainedQFormers
from lavis_msmedcap.models.vocabularies import Vocabulary
from lavis_msmedcap.models.weight_files import Need

OBJECTIVES = ("itc", "itm", "lm")
NAN = float("nan")


@registry.register_model("blip2_dual_qformer")
class Blip2DualQformer(TrainedQFormers):
    """Stage-1 model and feature extractor with one Q-Former per frozen encoder.

    Supported model types:
        - demo: miniature backbones that ship with the package
        - paper: EVA-CLIP ViT-g and SAM ViT-B (weights from files named in the configuration)
        - authors: the network of the authors' code, bugs included, for their checkpoints only

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

    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]] = packaged_types("blip2_dual_qformer")

    NAME = "blip2_dual_qformer"
    STAGE = 1
    SCHEMA: ClassVar[Mapping[str, Node]] = MODEL_SCHEMAS[NAME]

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

    def tokenizers(self) -> dict[str, Vocabulary]:
        """Returns the Q-Formers' tokenizer by its key."""
        return {"model.qformer.tokenizer": self.tokenizer}

    def trains_as_a_whole(self, domains: Collection[str], batch: int) -> bool:
        """Tells whether every batch gives every trainable parameter a gradient.

        Args:
            domains: Domains of the batches, each of which is of one domain.
            batch: Samples of the joint batch of all processes; one alone has no ITM.
        """
        return batch > 1 and all(set(domains) <= set(own) for own in self.train_on.values())

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Computes the losses of every branch on the samples of its domains.

        Args:
            samples: ``image`` (see `encode_image`), ``text_input`` list of B strings, and
                ``domain`` list of B domain names (absent: all branches train on all samples).

        Several processes train as one does on the joint batch of all of them: the mean of their
        ``loss`` is the loss of that batch, and so is the mean of their gradients, which DDP takes.
        The processes may hold different domains, and different numbers of samples of each.

        Returns:
            ``loss`` and LAVIS' ``loss_itc``, ``loss_itm``, ``loss_lm`` (weighted sum, and plain
            sums over branches), ``logs`` (detached scalars per branch and objective, whose mean
            over all samples that took part is the loss of the joint batch) and ``per_sample``
            (detached (B,), nan where a sample took no part). In evaluation also ``image_feats``: by
            branch what ITC compares of the images, float (B, Q, E), nan where an image took no
            part.
        """
        require(samples, ("image", "text_input"), "training")
        rows = {name: self._rows(name, samples) for name in self.branches}
        text = self._tokenize(samples["text_input"])
        joint, length = meet(
            {name: len(index) for name, index in rows.items()},
            text.input_ids.shape[1],
            self.device,
        )
        # a branch that another process trains: this one takes part with no samples
        active = [name for name in rows if joint[name].total]
        if not active:
            raise ValueError(
                f"no branch trains on domain {sorted(set(samples['domain']))}; "
                f"train_on is {self.train_on}"
            )
        text = self._padded(text, length)
        images = self.encode_image(samples["image"], active)
        totals: dict[str, Tensor] = {}
        logs: dict[str, Tensor] = {}
        per_sample: dict[str, Tensor] = {}
        image_feats: dict[str, Tensor] = {}
        for name in active:
            index, batch = rows[name].to(self.device), joint[name]
            result = self.branch(name).stage1_losses(
                images[name].rows(index),
                text.input_ids[index],
                text.attention_mask[index],
                self.tokenizer.pad_token_id,
                self.tokenizer.bos_token_id,
                batch,
            )
            for objective, share in result.losses.items():
                totals[objective] = totals.get(objective, 0.0) + len(batch.counts) * share
                if not batch.own:
                    continue
                key = f"{name}/loss_{objective}"
                logs[key] = share.detach() * (batch.total / batch.own)
                values = share.new_full((len(samples["text_input"]),), NAN)
                values[index] = result.per_sample[objective].to(values.dtype)
                per_sample[key] = values
            if not self.training:
                count = len(samples["text_input"])
                feats = result.image_feats.new_full((count, *result.image_feats.shape[1:]), NAN)
                feats[index] = result.image_feats
                image_feats[name] = feats
        loss = torch.stack([self.loss_weights[k] * v for k, v in totals.items()]).sum()
        named = {f"loss_{objective}": value for objective, value in totals.items()}
        output = {"loss": loss, **named, "logs": logs, "per_sample": per_sample}
        return output if self.training else {**output, "image_feats": image_feats}

    def gauges(self) -> dict[str, float]:
        """Returns what a training shows beside its losses: ``<branch>/temp``, ITC's temperature."""
        return {f"{name}/temp": self.branch(name).temp.item() for name in self.branches}

    def _rows(self, name: str, samples: Mapping[str, Any]) -> Tensor:
        """Returns the indices (K,) of the samples that a branch trains on."""
        count = len(samples["text_input"])
        domains = samples.get("domain")
        if domains is None:
            return torch.arange(count)
        wanted = self.train_on[name]
        return torch.tensor([i for i, domain in enumerate(domains) if domain in wanted]).long()

    def _padded(self, tokens: BatchEncoding, length: int) -> BatchEncoding:
        """Pads texts to the longest one of all processes."""
        extra = length - tokens.input_ids.shape[1]
        if extra:
            pad = self.tokenizer.pad_token_id
            tokens["input_ids"] = F.pad(tokens.input_ids, (0, extra), value=pad)
            tokens["attention_mask"] = F.pad(tokens.attention_mask, (0, extra))
        return tokens

    @classmethod
    def from_config(cls, cfg: Any) -> Blip2DualQformer:
        """Builds the model from the ``model:`` section of a configuration."""
        settings = convert(plain(cfg), cls.SCHEMA)
        cls.prepare_inputs(settings)
        tokenizer = load_text_tokenizer(settings["qformer"]["tokenizer"])
        size = qformer_size(settings["qformer"], len(tokenizer))
        chosen = active_branches(settings["branches"])
        model = cls(
            build_branches(settings, size, settings["embed_dim"]),
            {name: branch["train_on"] for name, branch in chosen.items()},
            tokenizer,
            settings["max_txt_len"],
            settings.get("loss_weights"),
            settings,
        )
        if settings.get("load_finetuned"):
            model.load_checkpoint(settings["finetuned"])
        else:
            model.check_starting_points()
        model.warn_of_blank_norm()
        return model

    @classmethod
    def backbone_needs(cls, settings: Mapping[str, Any]) -> list[Need]:
        """Lists the published weights that a configuration names."""
        return weight_needs(settings, cls.STAGE)
