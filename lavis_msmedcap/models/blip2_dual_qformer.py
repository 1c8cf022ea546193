"""Stage 1, mixed semantic pre-training: ITC + ITM + ITG per branch (paper 2.2).

Dimensions: B batch, N image tokens, Q query tokens, L text tokens, C encoder width,
D Q-Former width, E ITC width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch
from lavis.common.registry import registry
from lavis.models.blip_models.blip_outputs import BlipOutputFeatures
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchEncoding, BertTokenizer

from lavis_msmedcap.common.config_check import Node, convert
from lavis_msmedcap.common.distributed import meet
from lavis_msmedcap.common.errors import ArgumentError, told_as
from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.models.base import FUSED, DualBranchModel, plain
from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.build import (
    active_branches,
    build_branches,
    load_text_tokenizer,
    qformer_size,
    weight_needs,
)
from lavis_msmedcap.models.decoding import Search, decode
from lavis_msmedcap.models.features import (
    fuse_features,
    image_features,
    multimodal_features,
    text_features,
)
from lavis_msmedcap.models.matching import fuse, matching_logits, pairwise_similarity
from lavis_msmedcap.models.qformer_cache import CachedQFormer
from lavis_msmedcap.models.retrieval import (
    collect_galleries,
    contrast_text_feats,
    retrieval_scores,
)
from lavis_msmedcap.models.samples import require, texts_of
from lavis_msmedcap.models.settings_schema import MODEL_SCHEMAS
from lavis_msmedcap.models.text_lengths import TextLength
from lavis_msmedcap.models.vocabularies import Vocabulary
from lavis_msmedcap.models.weight_files import Need

OBJECTIVES = ("itc", "itm", "lm")
NAN = float("nan")
MATCH_HEADS = {"itm": matching_logits, "itc": pairwise_similarity}


@registry.register_model("blip2_dual_qformer")
class Blip2DualQformer(DualBranchModel):
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

    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]] = {
        model_type: str(package_path(f"configs/models/blip2_dual_qformer_{model_type}.yaml"))
        for model_type in ("demo", "paper", "authors")
    }

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

    def _tokenize(self, texts: Sequence[str]) -> BatchEncoding:
        """Tokenises B texts, padded to the longest of them."""
        return self.tokenizer(
            list(texts),
            padding="longest",
            truncation=True,
            max_length=self.max_txt_len,
            return_tensors="pt",
        ).to(self.device)

    def text_length(self) -> TextLength:
        """Returns what counts the tokens of texts, with [CLS] and [SEP]."""
        return TextLength(self.tokenizer.tokenize, extra=2)

    def _padded(self, tokens: BatchEncoding, length: int) -> BatchEncoding:
        """Pads texts to the longest one of all processes."""
        extra = length - tokens.input_ids.shape[1]
        if extra:
            pad = self.tokenizer.pad_token_id
            tokens["input_ids"] = F.pad(tokens.input_ids, (0, extra), value=pad)
            tokens["attention_mask"] = F.pad(tokens.attention_mask, (0, extra))
        return tokens

    @torch.no_grad()
    def generate(
        self,
        samples: Mapping[str, Any],
        use_nucleus_sampling: bool = False,
        num_beams: int = 3,
        max_length: int = 30,
        min_length: int = 10,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        branch: str | None = None,
    ) -> list[str]:
        """Writes captions with a Q-Former alone (ITG); arguments of LAVIS' ``Blip2Qformer``.

        A look at what stage 1 has learned; captions are the business of stage 2.

        Args:
            samples: ``image`` (see `encode_image`).
            use_nucleus_sampling: Sample from the ``top_p`` nucleus instead of searching.
            num_beams: Beams of the search; 1 is greedy.
            max_length: Most tokens, [DEC] included.
            min_length: Fewest tokens before [SEP], [DEC] included.
            top_p: Probability mass of the nucleus.
            repetition_penalty: Above 1 discourages tokens that occurred before.
            branch: ``clip`` or ``sam``; by default CLIP where present.

        Returns:
            B captions.

        Raises:
            ValueError: If the branch is unknown or ``fused``, or the image is absent or no tensor.
            ArgumentError: If numbers contradict each other, or the Q-Former has too few positions.
            NotFiniteOutputError: If the network gives nan or infinite values for an image.
        """
        require(samples, ("image",), "generate")
        names = self.chosen_branches(branch, default=self.primary)
        if len(names) > 1:
            raise ValueError("a Q-Former writes by itself: branch must be clip or sam, not fused")
        if not len(samples["image"]):
            return []
        part, start_id = self.branch(names[0]), self.tokenizer.bos_token_id
        _check_length(max_length, part.qformer.config.max_position_embeddings)
        image = self.encode_image(samples["image"], names)[names[0]]
        start = image.atts.new_full((len(image.atts), 1), start_id)
        network = CachedQFormer(part.qformer, part.query_tokens, image, start_id)
        with told_as({"max_new_tokens": "max_length"}):
            search = Search(
                eos_token_id=self.tokenizer.sep_token_id,
                pad_token_id=self.tokenizer.pad_token_id,
                num_beams=1 if use_nucleus_sampling else num_beams,
                max_new_tokens=max_length - 1,
                min_length=min_length,
                do_sample=use_nucleus_sampling,
                top_p=top_p,
                repetition_penalty=repetition_penalty,
            )
            tokens = decode(network, start, torch.ones_like(start), search)
        return self.tokenizer.batch_decode(tokens, skip_special_tokens=True)

    @torch.no_grad()
    def extract_features(
        self, samples: Mapping[str, Any], mode: str = "multimodal", branch: str | None = None
    ) -> BlipOutputFeatures:
        """Extracts features as BLIP-2's feature extractor does.

        Args:
            samples: ``image`` (see `encode_image`) and/or ``text_input``, B strings or one.
            mode: ``image``: query output and its projection; ``text``: text output and its
                projection; ``multimodal``: query output that knows the text.
            branch: ``clip`` or ``sam``; ``fused`` for both; by default CLIP where present, which
                gives the shapes of BLIP-2.

        Returns:
            LAVIS' feature container: ``image_embeds`` (B, Q, D) with ``image_embeds_proj``
            (B, Q, E), ``text_embeds`` (B, L, D) with ``text_embeds_proj`` (B, L, E), or
            ``multimodal_embeds`` (B, Q, D). Fused, with both branches: CLIP's queries before SAM's
            (Q is their sum), ``text_embeds`` (B, L, 2D), both projections 2E wide with one half per
            branch, so that ``(image_embeds_proj @ text_embeds_proj[:, 0].t()).max()`` compares
            each query with the text features of its own branch (see `models.features`). That is the
            better branch's similarity; `match` and `compute_sim_matrix` take the branches' mean.

        Raises:
            ValueError: If mode or branch is unknown, or an input that the mode needs is absent.
        """
        needed = {"image": ["image"], "text": ["text_input"], "multimodal": ["image", "text_input"]}
        if mode not in needed:
            raise ValueError(f"mode is {mode!r}; expected one of {', '.join(needed)}")
        require(samples, needed[mode], f"mode {mode!r}")
        names = self.chosen_branches(branch, default=self.primary)
        parts = [self.branch(name) for name in names]
        if mode == "image":
            images = self.encode_image(samples["image"], names)
            found = [image_features(self.branch(name), images[name]) for name in names]
        elif mode == "text":
            # the image of a sample, if any, plays no part
            text = self._tokenize(texts_of({"text_input": samples["text_input"]}))
            found = [text_features(part, text.input_ids, text.attention_mask) for part in parts]
        else:
            text = self._tokenize(texts_of(samples))
            images = self.encode_image(samples["image"], names)
            found = [
                multimodal_features(
                    self.branch(name), images[name], text.input_ids, text.attention_mask
                )
                for name in names
            ]
        return BlipOutputFeatures(**fuse_features(found))

    @torch.no_grad()
    def match(
        self, samples: Mapping[str, Any], match_head: str = "itm", branch: str | None = None
    ) -> Tensor:
        """Says how well texts describe images.

        Args:
            samples: ``image`` (see `encode_image`) and ``text_input``, B strings or one.
            match_head: ``itm``: classify each pair; ``itc``: compare features.
            branch: ``clip`` or ``sam``; ``fused``, the default, averages logits or similarities.

        Returns:
            ``itm``: logits (B, 2) of the B pairs, column 1 for a match. ``itc``: cosine
            similarities (B, B) of every image with every text, the pairs on the diagonal.

        Raises:
            ValueError: If the head or branch is unknown, or an input is absent.
        """
        if match_head not in MATCH_HEADS:
            raise ValueError(
                f"match_head is {match_head!r}; expected one of {', '.join(MATCH_HEADS)}"
            )
        require(samples, ("image", "text_input"), f"match_head {match_head!r}")
        names = self.chosen_branches(branch, default=FUSED)
        text = self._tokenize(texts_of(samples))
        images = self.encode_image(samples["image"], names)
        score = MATCH_HEADS[match_head]
        return fuse(
            score(self.branch(name), images[name], text.input_ids, text.attention_mask)
            for name in names
        )

    @torch.no_grad()
    def text_feats(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns by branch what ITC compares of T texts: float (T, E), L2-normalised."""
        text = self._tokenize(texts)
        return {
            name: contrast_text_feats(self.branch(name), text.input_ids, text.attention_mask)
            for name in self.branches
        }

    @torch.no_grad()
    def compute_sim_matrix(self, data_loader: Any, task_cfg: Any) -> tuple[Any, Any]:
        """Scores all images against all texts of a dataset, for LAVIS' ``retrieval`` task.

        Args:
            data_loader: Yields ``image`` and, where it is not in the order of the dataset,
                ``index``; its dataset has ``text`` (T strings) and ``image`` (I entries), as LAVIS'
                ``RetrievalEvalDataset``. Under a process group every rank needs all images
                (``run.use_dist_eval_sampler: false``). The encoder output of all images is kept on
                the CPU: I * N * C values per branch.
            task_cfg: The ``run:`` section: ``k_test``, and optionally ``branch`` (``clip``, ``sam``
                or ``fused``, the default).

        Returns:
            numpy float32 (I, T) and (T, I), see `models.retrieval.retrieval_scores`.

        Raises:
            ValueError: If ``k_test`` is absent or not positive, the branch is unknown, or the
                loader does not yield each image once.
        """
        k_test = task_cfg.get("k_test")
        if not isinstance(k_test, int) or k_test < 1:
            raise ValueError(f"run.k_test is {k_test!r}; retrieval needs a number of candidates")
        names = self.chosen_branches(task_cfg.get("branch"), default=FUSED)
        text = self._tokenize(data_loader.dataset.text)
        galleries = collect_galleries(
            {name: self.branch(name) for name in names},
            ((self.encode_image(s["image"], names), s.get("index")) for s in data_loader),
            len(data_loader.dataset.image),
            text.input_ids,
            text.attention_mask,
        )
        i2t, t2i = retrieval_scores(galleries, text.input_ids, text.attention_mask, k_test)
        return i2t.cpu().numpy(), t2i.cpu().numpy()

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


def _check_length(max_length: int, positions: int) -> None:
    """Refuses captions without room for a token beside [DEC], or longer than the Q-Former takes."""
    if not 2 <= max_length <= positions:
        raise ArgumentError(
            f"{{max_length}} is {max_length}; expected at least 2, because [DEC] counts, and at "
            f"most {positions}, the positions of the Q-Former"
        )
