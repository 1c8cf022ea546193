"""What a stage-1 model is asked once it is trained: features, matches, rankings, captions.

Dimensions: B batch, I images, T texts, N image tokens, Q query tokens, L text tokens, C encoder
width, D Q-Former width, E ITC width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lavis.models.blip_models.blip_outputs import BlipOutputFeatures
from torch import Tensor
from transformers import BatchEncoding, BertTokenizer

from lavis_msmedcap.common.errors import ArgumentError, told_as
from lavis_msmedcap.models.base import FUSED, DualBranchModel
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
from lavis_msmedcap.models.text_lengths import TextLength

MATCH_HEADS = {"itm": matching_logits, "itc": pairwise_similarity}


class TrainedQFormers(DualBranchModel):
    """The half of the stage-1 model that needs no training batch; see `Blip2DualQformer`.

    Attributes:
        tokenizer: WordPiece tokenizer with [DEC].
        max_txt_len: Longest text in tokens; longer ones are cut.
    """

    tokenizer: BertTokenizer
    max_txt_len: int

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


def _check_length(max_length: int, positions: int) -> None:
    """Refuses captions without room for a token beside [DEC], or longer than the Q-Former takes."""
    if not 2 <= max_length <= positions:
        raise ArgumentError(
            f"{{max_length}} is {max_length}; expected at least 2, because [DEC] counts, and at "
            f"most {positions}, the positions of the Q-Former"
        )
