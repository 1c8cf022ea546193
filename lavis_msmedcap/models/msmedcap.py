"""Stage 2, captioning with a frozen OPT (paper 2.3).

Dimensions: B batch, P tokens of the visual prefix, L text tokens, D_lm LLM width.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
from lavis.common.registry import registry
from torch import Tensor, nn

from lavis_msmedcap.common.config_check import Node, convert
from lavis_msmedcap.common.errors import WeightsError, told_as
from lavis_msmedcap.models.answers import format_questions, rank_answers
from lavis_msmedcap.models.base import DualBranchModel, packaged_types, plain
from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.build import (
    build_branches,
    load_text_tokenizer,
    qformer_size,
    weight_needs,
)
from lavis_msmedcap.models.captioner import caption_loss, concat_prefix
from lavis_msmedcap.models.checkpoint_check import STAGE1_CURE, arch_problem
from lavis_msmedcap.models.checkpoint_names import STAGE1_ONLY
from lavis_msmedcap.models.checkpoints import find_checkpoint, read_any_checkpoint
from lavis_msmedcap.models.decoding import generate
from lavis_msmedcap.models.lemmas import lemmatize
from lavis_msmedcap.models.llm_build import build_llm, llm_needs
from lavis_msmedcap.models.llm_text import (
    caption_inputs,
    decode_captions,
    encode,
    end_of_caption_id,
    prompt_inputs,
)
from lavis_msmedcap.models.samples import require, texts_of
from lavis_msmedcap.models.settings_schema import MODEL_SCHEMAS
from lavis_msmedcap.models.text_lengths import TextLength
from lavis_msmedcap.models.vocabularies import Vocabulary
from lavis_msmedcap.models.weight_files import Need
from lavis_msmedcap.models.weights import ExpectedKeys

logger = logging.getLogger(__name__)

# what the arguments of `decoding.generate` are called in `MSMedCap.generate`, and those of both in
# `MSMedCap.predict_answers`
CAPTION_NAMES = {
    "max_new_tokens": "max_length",
    "num_return_sequences": "num_captions",
    "prompt_ids": "samples['prompt']",
}
QUESTION_NAMES = {
    "max_length": "max_len",
    "min_length": "min_len",
    "samples['prompt']": "the question",
    "prompt_ids": "the question",
}


@registry.register_model("msmedcap")
class MSMedCap(DualBranchModel):
    """MSMedCap captioner: two Q-Formers in front of a frozen OPT.

    Supported model types:
        - demo: the trained miniature model that ships with the package (the default)
        - paper: EVA-CLIP ViT-g, SAM ViT-B and OPT-2.7b (weights from files named in
          ``configs/models/msmedcap_paper.yaml``)
        - authors: the network of the authors' code, bugs included, for their checkpoints only

    Usage:
        >>> from lavis.models import load_model_and_preprocess
        >>> model, vis, txt = load_model_and_preprocess("msmedcap", is_eval=True)
        >>> model.generate({"image": vis["eval"](raw_image).unsqueeze(0)})

    Args:
        branches: Branches by name, each with its linear layer into the LLM.
        opt_model: Frozen OPT.
        opt_tokenizer: Its tokenizer.
        prompt: Text between the visual prefix and the caption, the same in training and generation.
        max_txt_len: Longest prompt and caption together, in tokens.
        settings: The ``model:`` section, kept for checkpoints.
        apply_lemmatizer: `predict_answers` returns lemmas (needs spaCy).
    """

    # the authors' files for captioning carry the text half along
    FOREIGN_EXTRAS: ClassVar[Mapping[str, str]] = STAGE1_ONLY
    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]] = packaged_types("msmedcap")

    NAME = "msmedcap"
    STAGE = 2
    SCHEMA: ClassVar[Mapping[str, Node]] = MODEL_SCHEMAS[NAME]

    def __init__(
        self,
        branches: Mapping[str, QFormerBranch],
        opt_model: nn.Module,
        opt_tokenizer: Any,
        prompt: str = "Question: Describe the image. Answer:",
        max_txt_len: int = 64,
        settings: Mapping[str, Any] | None = None,
        apply_lemmatizer: bool = False,
    ) -> None:
        super().__init__(branches, settings or {})
        self.opt_model = opt_model
        self.opt_tokenizer = opt_tokenizer
        self.eos_token_id = end_of_caption_id(opt_tokenizer)
        self.prompt = prompt
        self.max_txt_len = max_txt_len
        self.apply_lemmatizer = apply_lemmatizer

    @property
    def opt_proj(self) -> nn.Module:
        """BLIP-2's name for the CLIP branch's linear layer into the LLM."""
        return cast(nn.Module, self._primary.llm_proj)

    def tokenizers(self) -> dict[str, Vocabulary]:
        """Returns the LLM's tokenizer by its key; captioning leaves the Q-Former's unused."""
        return {"model.llm.tokenizer": self.opt_tokenizer}

    def trains_as_a_whole(self, domains: Collection[str], batch: int) -> bool:  # noqa: ARG002
        """Tells whether every batch gives every trainable parameter a gradient: always."""
        return True

    def visual_prefix(self, image: Tensor) -> Tensor:
        """Encodes images into the LLM's space.

        Args:
            image: See `encode_image`.

        Returns:
            float (B, P, D_lm), CLIP's queries before SAM's (Eq. 5).
        """
        embeds = self.encode_image(image)
        return concat_prefix(
            self.branch(name).visual_prefix(embeds[name]) for name in self.branches
        )

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Computes the LLM loss.

        Args:
            samples: ``image`` (see `encode_image`), ``text_input`` list of B captions, and
                optionally ``prompt``, a string or B strings.

        Returns:
            ``loss``, ``logs``, ``per_sample``, and ``weight``, the number of caption tokens, by
            which batches count that make one optimizer step. Of several processes the mean of
            their ``loss`` is that of the joint batch.
        """
        require(samples, ("image", "text_input"), "training")
        captions = texts_of(samples)
        prompts = self._prompts(samples, len(captions))
        input_ids, attention_mask, targets = (
            tensor.to(self.device)
            for tensor in caption_inputs(self.opt_tokenizer, prompts, captions, self.max_txt_len)
        )
        prefix = self.visual_prefix(samples["image"])
        result = caption_loss(self.opt_model, prefix, input_ids, attention_mask, targets)
        return {
            "loss": result.loss,
            "logs": {"loss_lm": result.logged},
            "per_sample": {"loss_lm": result.per_sample},
            "weight": result.tokens,
        }

    @torch.no_grad()
    def generate(
        self,
        samples: Mapping[str, Any],
        use_nucleus_sampling: bool = False,
        num_beams: int = 5,
        max_length: int = 30,
        min_length: int = 1,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        length_penalty: float = 1.0,
        num_captions: int = 1,
        temperature: float = 1.0,
    ) -> list[str]:
        """Writes captions; takes the arguments of BLIP-2's ``generate``.

        An image gets the same caption alone or in a batch (except under nucleus sampling).

        Args:
            samples: ``image`` (see `encode_image`) and optionally ``prompt``, a string or B;
                None is the model's own.
            use_nucleus_sampling: Sample from the ``top_p`` nucleus instead of searching.
            num_beams: Beams of the search; 1 is greedy.
            max_length: Most tokens of a caption.
            min_length: Fewest tokens, the prompt included (as in LAVIS 1.0.2).
            top_p: Probability mass of the nucleus.
            repetition_penalty: Above 1 discourages tokens that occurred before.
            length_penalty: Exponent of the length that beam scores are divided by.
            num_captions: Captions per image.
            temperature: Divides the logits when sampling.

        Returns:
            B * num_captions strings, the captions of one image next to each other; none for an
            empty batch.

        Raises:
            ValueError: If the image is absent or no tensor, or there are fewer prompts than images.
            ArgumentError: If numbers contradict each other, or the LLM has too few positions.
            NotFiniteOutputError: If the network gives nan or infinite values for an image.
        """
        require(samples, ("image",), "generate")
        if not len(samples["image"]):
            return []
        prefix = self.visual_prefix(samples["image"])
        prompts = self._prompts(samples, prefix.shape[0])
        prompt_ids, prompt_mask = (
            tensor.to(self.device) for tensor in prompt_inputs(self.opt_tokenizer, prompts)
        )
        with told_as(CAPTION_NAMES):
            tokens = generate(
                self.opt_model,
                prefix,
                prompt_ids,
                prompt_mask,
                num_beams=1 if use_nucleus_sampling else num_beams,
                max_new_tokens=max_length,
                min_length=min_length,
                do_sample=use_nucleus_sampling,
                top_p=top_p,
                temperature=temperature,
                repetition_penalty=repetition_penalty,
                length_penalty=length_penalty,
                num_return_sequences=num_captions,
                eos_token_id=self.eos_token_id,
                pad_token_id=self.opt_tokenizer.pad_token_id,
            )
        return decode_captions(self.opt_tokenizer, tokens)

    @torch.no_grad()
    def predict_answers(
        self,
        samples: Mapping[str, Any],
        num_beams: int = 5,
        inference_method: str = "generate",
        max_len: int = 10,
        min_len: int = 1,
        num_ans_candidates: int = 128,
        answer_list: Sequence[str] | None = None,
        prompt: str = "",
        length_penalty: float = 0.0,
        **_: Any,
    ) -> list[str]:
        """Answers questions about images; takes the arguments of BLIP-2's ``predict_answers``.

        LAVIS' VQA tasks call it. BLIP-2 with OPT has it since LAVIS' main branch only, with
        ``generate`` as its one method; ``rank`` is that of LAVIS' BLIP.

        Args:
            samples: ``image`` (see `encode_image`), ``text_input``, B questions or one, and
                optionally ``apply_lemmatizer``.
            num_beams: Beams of the search; 1 is greedy.
            inference_method: ``generate`` writes answers, ``rank`` chooses from ``answer_list``.
            max_len: Most tokens of a written answer.
            min_len: Fewest tokens, the prompt included (as in `generate`).
            num_ans_candidates: Ranking compares this many answers of the list in full.
            answer_list: Answers to choose from.
            prompt: Text around the question, as ``"Question: {} Short answer:"``; empty: none.
            length_penalty: Exponent of the length that beam scores are divided by.
            **_: Arguments of other VQA models, which mean nothing here.

        Returns:
            B answers, in the order of the batch.

        Raises:
            ValueError: If an input or the list of answers is absent, or the method or prompt is
                none of the above.
            ArgumentError: As in `generate`.
            MSMedCapError: If lemmas are asked for and spaCy is not there, or the network gives nan
                or infinite values for an image.
        """
        require(samples, ("image", "text_input"), "predict_answers")
        prompts = format_questions(texts_of(samples), prompt)
        if not prompts:
            return []
        if inference_method == "generate":
            with told_as(QUESTION_NAMES):
                answers = self.generate(
                    {"image": samples["image"], "prompt": prompts},
                    num_beams=num_beams,
                    max_length=max_len,
                    min_length=min_len,
                    length_penalty=length_penalty,
                )
        elif inference_method == "rank":
            if answer_list is None:
                raise ValueError(
                    "inference_method 'rank' needs answer_list, which comes from the dataset; "
                    "or set run.inference_method to generate"
                )
            inputs = prompt_inputs(self.opt_tokenizer, prompts)
            with told_as(QUESTION_NAMES):
                answers = rank_answers(
                    self.opt_model,
                    self.opt_tokenizer,
                    self.visual_prefix(samples["image"]),
                    inputs.input_ids.to(self.device),
                    inputs.attention_mask.to(self.device),
                    answer_list,
                    num_ans_candidates,
                )
        else:
            raise ValueError(f"inference_method is {inference_method!r}; expected generate or rank")
        if self.apply_lemmatizer or samples.get("apply_lemmatizer"):
            return lemmatize(answers)
        return answers

    def text_length(self) -> TextLength:
        """Returns what counts the tokens of captions in training, prompt and ends included."""
        prompt = prompt_inputs(self.opt_tokenizer, [self.prompt]).input_ids.shape[1]
        first_blank = " " if self.prompt.strip() else ""
        return TextLength(partial(encode, self.opt_tokenizer), prompt + 1, " ", first_blank)

    def _prompts(self, samples: Mapping[str, Any], count: int) -> list[str]:
        """Returns one prompt per sample."""
        prompt: str | Sequence[str] | None = samples.get("prompt")
        if prompt is None:
            return [self.prompt] * count
        if isinstance(prompt, str):
            return [prompt] * count
        if len(prompt) != count:
            raise ValueError(f"samples['prompt'] has {len(prompt)} prompts for {count} images")
        return list(prompt)

    def load_stage1(self, location: str) -> None:
        """Loads the Q-Formers of a stage-1 run.

        Args:
            location: Checkpoint file (of BLIP-2 or of the authors' code too), run directory, or
                folder of runs (newest finished run).

        Raises:
            WeightsError: If there is no such checkpoint, it is of another model, a key cannot be
                explained, or it was trained with other settings or frozen encoders.
        """
        try:
            path = find_checkpoint(location, logger.warning)
        except WeightsError as error:
            raise WeightsError(f"model.stage1: {error}. {STAGE1_CURE}") from error
        checkpoint = read_any_checkpoint(path)
        wrong = arch_problem(path, checkpoint.metadata.get("arch"), None, "stage1")
        if wrong is not None:
            raise WeightsError(f"model.stage1: {wrong}")
        expected = ExpectedKeys(
            missing={
                r"\.llm_proj\.": "the linear layer into the LLM starts fresh in stage 2",
                r"\.lora_": "LoRA starts fresh in stage 2",
            },
            unused={**self.dropped_branch_keys(), **STAGE1_ONLY},
        )
        self._load_any(checkpoint, str(path), expected)
        self.starts_from = str(path)

    @classmethod
    def from_config(cls, cfg: Any) -> MSMedCap:
        """Builds the model from the ``model:`` section of a configuration."""
        settings = convert(plain(cfg), cls.SCHEMA)
        cls.prepare_inputs(settings)
        opt_model, opt_tokenizer = build_llm(settings["llm"])
        vocab_size = len(load_text_tokenizer(settings["qformer"]["tokenizer"]))
        size = qformer_size(settings["qformer"], vocab_size)
        width = opt_model.get_input_embeddings().embedding_dim  # opt-350m: not hidden_size
        branches = build_branches(settings, size, embed_dim=None, llm_width=width)
        model = cls(
            branches,
            opt_model,
            opt_tokenizer,
            settings["prompt"],
            settings["max_txt_len"],
            settings,
            settings.get("apply_lemmatizer", False),
        )
        if settings.get("load_finetuned"):
            model.load_checkpoint(settings["finetuned"])
        elif settings.get("stage1"):
            model.load_stage1(settings["stage1"])
        else:
            logger.warning(
                "model.stage1 is null: Q-Formers and linear layers into the LLM have RANDOM "
                "weights, and captions mean nothing until they are trained; set model.stage1 to a "
                "checkpoint of stage 1, or load a trained captioner with model.load_finetuned=true"
            )
        model.warn_of_blank_norm()
        return model

    @classmethod
    def backbone_needs(cls, settings: Mapping[str, Any]) -> list[Need]:
        """Lists the published weights that a configuration names."""
        return [*weight_needs(settings, cls.STAGE), *llm_needs(settings.get("llm", {}))]
