"""Sizes of a configured model, read from networks that are built without memory (meta device).

Dimensions: N image tokens, C encoder width, Q query tokens, D Q-Former width, D_lm LLM width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lavis_msmedcap.models.branch import QFormerBranch, QFormerSize
from lavis_msmedcap.models.build import ENCODER_SETTINGS, active_branches, qformer_size
from lavis_msmedcap.models.encoders.build import build_encoder
from lavis_msmedcap.models.encoders.clip_l import ClipLEncoder
from lavis_msmedcap.models.encoders.sam import SamEncoder
from lavis_msmedcap.models.gradient_checkpointing import decoder_layers
from lavis_msmedcap.models.llm import llm_config, llm_from_config
from lavis_msmedcap.models.weight_files import Part, locate

BERT_VOCABULARY = 30523  # bert-base-uncased and [DEC]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class EncoderShape:
    """A frozen image encoder.

    Attributes:
        label: For the table.
        parameters: Of the ViT, in the encoder's precision.
        norm_parameters: Of the layer norm behind it, always float32.
        image_size: Side of the view in pixels.
        tokens: N, what the Q-Former reads.
        width: C.
        patches: Positions inside the ViT, class token included.
        vit_width: Width inside the ViT.
        heads: Attention heads.
        hidden: Hidden width of the MLP.
        scores: Attention scores per head and image of the block that has most of them.
        is_sam: SAM adds relative positions to its attention scores.
    """

    label: str
    parameters: int
    norm_parameters: int
    image_size: int
    tokens: int
    width: int
    patches: int
    vit_width: int
    heads: int
    hidden: int
    scores: int
    is_sam: bool


@dataclass(frozen=True)
class BranchShape:
    """One branch.

    Attributes:
        encoder: The frozen encoder.
        queries: Q.
        trainable: Trainable values by part (``qformer``, ``query_tokens``, ``llm_proj``, ...).
        linear: Values of trainable matrices, which autocast copies.
    """

    encoder: EncoderShape
    queries: int
    trainable: Mapping[str, int]
    linear: int


@dataclass(frozen=True)
class LlmShape:
    """The frozen language model.

    Attributes:
        linear: Values of the blocks' matrices, which quantisation can shrink.
        rest: All other values: embeddings, norms, biases.
        width: Width inside the blocks.
        layers: Number of blocks.
        heads: Attention heads.
        hidden: Hidden width of the feed-forward parts.
        vocabulary: Number of tokens.
        lora_inputs: Input width of all layers with LoRA together.
        lora: Trainable values of LoRA.
    """

    linear: int
    rest: int
    width: int
    layers: int
    heads: int
    hidden: int
    vocabulary: int
    lora_inputs: int = 0
    lora: int = 0


@dataclass(frozen=True)
class ModelShape:
    """A model of either stage.

    Attributes:
        qformer: Sizes of the Q-Formers.
        branches: By name.
        llm: None in stage 1.
        notes: What was assumed because a file is not there.
    """

    qformer: QFormerSize
    branches: Mapping[str, BranchShape]
    llm: LlmShape | None
    notes: tuple[str, ...] = ()


def read_shape(model: Mapping[str, Any]) -> ModelShape:
    """Reads the sizes of a model from its ``model:`` section; no weights file is opened.

    Raises:
        WeightsError: If the LLM's ``config.json`` is not there and its name is not a known one.
    """
    notes: list[str] = []
    size = qformer_size(model["qformer"], _vocabulary(model["qformer"]["tokenizer"], notes))
    llm, llm_width = None, None
    if model.get("llm"):
        network = _llm_network(model["llm"], notes)
        llm_width = network.get_input_embeddings().embedding_dim
        llm = _llm_shape(network, model["llm"].get("lora"))
    branches = {
        name: _branch_shape(name, settings, size, model.get("embed_dim"), llm_width)
        for name, settings in active_branches(model["branches"]).items()
    }
    return ModelShape(size, branches, llm, tuple(notes))


def without_memory(build: Callable[[], ModuleT]) -> ModuleT:
    """Builds a network whose tensors have shapes and types, but no values."""
    with torch.device("meta"):
        return build()


def count(parameters: Iterable[Tensor]) -> int:
    """Returns the number of values."""
    return sum(parameter.numel() for parameter in parameters)


def _vocabulary(tokenizer: str, notes: list[str]) -> int:
    path = locate(tokenizer, Part(names=("vocab.txt",))) / "vocab.txt"
    if path.is_file():
        return len(path.read_text(encoding="utf-8").splitlines()) + 1  # [DEC]
    notes.append(f"{path} is not there: the vocabulary of bert-base-uncased is assumed")
    return BERT_VOCABULARY


def _branch_shape(
    name: str,
    settings: Mapping[str, Any],
    size: QFormerSize,
    embed_dim: int | None,
    llm_width: int | None,
) -> BranchShape:
    chosen = settings["encoder"]
    sizes = {key: value for key, value in chosen.items() if key not in ENCODER_SETTINGS}
    branch = without_memory(
        lambda: QFormerBranch(
            build_encoder(chosen["name"], sizes, None, name),
            size,
            settings["num_query_token"],
            embed_dim,
            llm_width,
        )
    )
    own = {n: p for n, p in branch.named_parameters() if not n.startswith("encoder.")}
    parts = dict.fromkeys(name.partition(".")[0] for name in own)
    return BranchShape(
        encoder=_encoder_shape(name, branch.encoder),
        queries=settings["num_query_token"],
        trainable={
            part: count(p for n, p in own.items() if n.partition(".")[0] == part) for part in parts
        },
        linear=count(matrices(branch)) - count(matrices(branch.encoder)),
    )


def _encoder_shape(name: str, encoder: Any) -> EncoderShape:
    sam = isinstance(encoder, SamEncoder)
    clip_l = isinstance(encoder, ClipLEncoder)
    block = encoder.vit.transformer.resblocks[0] if clip_l else encoder.vit.blocks[0]
    proj = encoder.vit.conv1 if clip_l else encoder.vit.patch_embed.proj
    mlp = block.mlp.c_fc if clip_l else block.mlp.lin1 if sam else block.mlp.fc1
    side = encoder.image_size // proj.kernel_size[0]
    patches = side * side if sam else side * side + 1  # and the class token
    return EncoderShape(
        label=f"{name} encoder",
        parameters=count(encoder.vit.parameters()),
        norm_parameters=0 if sam else count(encoder.ln.parameters()),
        image_size=encoder.image_size,
        tokens=encoder.num_tokens if sam else patches,
        width=encoder.width,
        patches=patches,
        vit_width=proj.out_channels,
        heads=block.attn.num_heads,
        hidden=mlp.out_features,
        scores=_sam_scores(encoder.vit.blocks, side) if sam else patches * patches,
        is_sam=sam,
    )


def _sam_scores(blocks: Any, side: int) -> int:
    """Returns the scores per head of the largest block; windows are padded to whole ones."""
    counts = []
    for block in blocks:
        window = block.window_size or side
        across = -(-side // window)
        counts.append((across * window) ** 2 * window**2)
    return max(counts)


def _llm_network(settings: Mapping[str, Any], notes: list[str]) -> Any:
    config, note = llm_config(locate(settings["weights"], Part(names=("config.json",))))
    if note:
        notes.append(note)
    return without_memory(lambda: llm_from_config(config))


def _llm_shape(network: Any, lora: Mapping[str, Any] | None) -> LlmShape:
    layers = decoder_layers(network)
    linear = count(matrices(layers))
    config = network.config
    targets = [
        part.weight.shape
        for name, part in layers.named_modules()
        if lora and name.rpartition(".")[2] in lora["target_modules"]
    ]
    return LlmShape(
        linear=linear,
        rest=count(network.parameters()) - linear,
        width=config.hidden_size,
        layers=len(layers),
        heads=config.num_attention_heads,
        hidden=max(max(matrix.shape) for matrix in matrices(layers[0])),
        vocabulary=config.vocab_size,
        lora_inputs=sum(shape[1] for shape in targets),
        lora=sum(lora["rank"] * sum(shape) for shape in targets) if lora else 0,
    )


def matrices(module: nn.Module) -> list[Tensor]:
    """Returns the weights of all linear layers (GPT-2's are a class of its own, ``Conv1D``)."""
    return [
        part.weight
        for part in module.modules()
        if isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"
        if isinstance(part.weight, Tensor)
    ]
