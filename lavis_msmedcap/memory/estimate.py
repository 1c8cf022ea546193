"""From the settings of a model and a run to bytes by part, in training and in inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lavis_msmedcap.memory.activations import (
    Need,
    QFormerPass,
    Types,
    cache_bytes,
    embeds_bytes,
    encoder_bytes,
    llm_bytes,
    logits_bytes,
    qformer_bytes,
    text_head_bytes,
)
from lavis_msmedcap.memory.shapes import BranchShape, LlmShape, ModelShape

GIB = 2**30
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# per weight of a quantised matrix: NF4 has a float32 scale per 64 weights, int8 one per row
QUANTIZED = {"int8": 1.0, "nf4": 0.5 + 4 / 64}
CUDA_CONTEXT = 600 * 2**20  # driver, cuBLAS and cuDNN, as found on current cards
FRAGMENTATION = 1.05  # memory that PyTorch's allocator holds but cannot use
ADAMW_MOMENTS = 2


@dataclass(frozen=True)
class RunSettings:
    """What of the ``run:`` section costs memory.

    Attributes:
        batch_size_train: B in training.
        accum_grad_iters: Batches per optimizer step; costs no memory.
        batch_size_eval: B in inference.
        amp: ``off``, ``bf16`` or ``fp16``.
        num_beams: Beams of the search.
        max_len: Most caption tokens.
        trains: Whether the run trains at all.
        averages: Whether the training keeps an average of the weights (``run.ema_decay``).
        llm_shares: Processes that the blocks of the LLM are divided among.
    """

    batch_size_train: int = 1
    accum_grad_iters: int = 1
    batch_size_eval: int = 1
    amp: str = "off"
    num_beams: int = 5
    max_len: int = 30
    trains: bool = True
    averages: bool = False
    llm_shares: int = 1


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        part: What needs the memory.
        detail: Its size in words.
        bytes: How much.
    """

    part: str
    detail: str
    bytes: float


@dataclass(frozen=True)
class Estimate:
    """Memory of one process.

    Attributes:
        parameters: By part.
        training: Gradients, optimizer state, activations.
        inference: What a training keeps while it validates, encoders' largest moment, cache.
        gradients: Bytes; with several processes DDP has a second copy of them.
        training_total: Bytes in training, context and fragmentation included.
        inference_total: Bytes in inference, likewise.
        notes: What was assumed.
    """

    parameters: tuple[Line, ...]
    training: tuple[Line, ...]
    inference: tuple[Line, ...]
    gradients: float
    training_total: float
    inference_total: float
    notes: tuple[str, ...] = ()


def estimate(model: Mapping[str, Any], run: RunSettings, shape: ModelShape) -> Estimate:
    """Estimates the memory of one GPU.

    Three moments of a training step count, not their sum: the encoders' largest block (nothing else
    is alive then), the end of the forward pass (all activations) and the optimizer step (its
    temporary copies).

    Args:
        model: The ``model:`` section.
        run: Batch sizes, mixed precision, decoding.
        shape: Sizes of that model, from `read_shape`.
    """
    parameters = _parameter_lines(model, shape, run.llm_shares)
    held = sum(line.bytes for line in parameters)
    trainable, values = trainable_bytes(model, shape)
    gradients = Line("gradients", f"{values / 1e6:.1f} M values", trainable)
    moments = Line("AdamW state", f"{ADAMW_MOMENTS} moments", ADAMW_MOMENTS * trainable)
    average = [Line("average of weights", "float32", 4 * values)] if run.averages else []
    encoders = _encoder_lines(model, shape, run.batch_size_train)
    activations = activation_lines(model, run, shape)
    step = Line("optimizer step", "copies while it runs", trainable)
    kept = [moments, *average] if run.trains else []
    lasting = held + gradients.bytes + sum(line.bytes for line in kept)
    moment = max(
        max(line.bytes for line in encoders),
        sum(line.bytes for line in activations),
        step.bytes,
    )
    # validation comes between two steps: without gradients, but with all that outlives a step
    waiting = list(kept)
    if run.averages and run.trains:
        waiting.append(Line("weights put aside", "validation takes their average", trainable))
    decoding = _decoding_lines(model, run, shape)
    largest = max(
        max(line.bytes for line in _encoder_lines(model, shape, run.batch_size_eval)),
        sum(line.bytes for line in decoding),
    )
    return Estimate(
        parameters=tuple(parameters),
        training=(gradients, *kept, *activations, *encoders, step),
        inference=(*waiting, *_encoder_lines(model, shape, run.batch_size_eval), *decoding),
        gradients=gradients.bytes,
        training_total=CUDA_CONTEXT + FRAGMENTATION * (lasting + moment),
        inference_total=CUDA_CONTEXT
        + FRAGMENTATION * (held + sum(line.bytes for line in waiting) + largest),
        notes=shape.notes,
    )


def activation_lines(
    model: Mapping[str, Any],
    run: RunSettings,
    shape: ModelShape,
    text_length: int | None = None,
) -> list[Line]:
    """Returns what waits for the backward pass, and the largest passing need as the last line.

    Args:
        model: The ``model:`` section.
        run: Batch size and mixed precision.
        shape: Sizes.
        text_length: L; ``max_txt_len``, its largest value, by default.
    """
    text = text_length or int(model["max_txt_len"])
    batch = f"batch {run.batch_size_train}"
    needs: list[tuple[str, str, Need]] = []
    for name, branch in shape.branches.items():
        need = _branch_need(model, run, shape, branch, text)
        needs.append((f"{name} Q-Former activations", batch, need))
    if run.amp != "off" and _trainable_bytes(model) == 4:
        cast = 2 * sum(branch.linear for branch in shape.branches.values())
        # with checkpointing the copies live as long as the forward pass
        need = Need(0, cast) if model["qformer"].get("gradient_checkpointing") else Need(cast)
        needs.append(("trainable weights cast by amp", f"fp32 to {run.amp}", need))
    if shape.llm is not None:
        needs += _llm_needs(model, run, shape, shape.llm, text)
    passing = max(need.passing for _, _, need in needs)
    lines = [Line(part, detail, need.kept) for part, detail, need in needs]
    return [*lines, Line("backward pass", "recomputed layer, logits", passing)]


def _branch_need(
    model: Mapping[str, Any], run: RunSettings, shape: ModelShape, branch: BranchShape, text: int
) -> Need:
    size, batch = shape.qformer, run.batch_size_train
    types = Types.of(_trainable_bytes(model), run.amp != "off")
    encoder = branch.encoder
    reading = QFormerPass(batch, branch.queries, 0, 0, encoder.tokens, encoder.width)
    passes = [reading]
    kept = 0
    if shape.llm is None:
        # ITC of text; ITM of three pairs per image, whose image tokens are copied; ITG
        passes = [
            replace(reading, keeps_keys=True),
            QFormerPass(batch, 0, text),
            replace(reading, batch=3 * batch, text=text),
            QFormerPass(batch, 0, text, past=branch.queries),
        ]
        kept = text_head_bytes(size, batch, text, types)
    checkpointing = bool(model["qformer"].get("gradient_checkpointing"))
    needs = [qformer_bytes(size, one, types, size.dropout > 0, checkpointing) for one in passes]
    return Need(kept + sum(need.kept for need in needs), max(need.passing for need in needs))


def _llm_needs(
    model: Mapping[str, Any], run: RunSettings, shape: ModelShape, llm: LlmShape, text: int
) -> list[tuple[str, str, Need]]:
    settings, batch = model["llm"], run.batch_size_train
    precision = settings.get("precision", "fp32")
    cast = run.amp != "off" and precision == "fp32"  # in 16 bits it computes in its own type
    types = Types.of(BYTES[precision], cast)
    if precision == "fp16":
        types = Types(matmul=2, wide=4, cast=True)  # OPT's softmax is float32 then
    prefix = _prefix(shape)
    checkpointing = bool(settings.get("gradient_checkpointing"))
    blocks = llm_bytes(llm, batch, prefix + text, types, checkpointing)
    logits = logits_bytes(llm, batch, prefix, text, types)
    needs = [
        ("LLM activations", f"batch {batch}, {prefix + text} positions", blocks),
        ("LLM logits", f"vocabulary {llm.vocabulary}", logits),
    ]
    if llm.lora:
        inputs = Need(batch * (prefix + text) * llm.lora_inputs * 4)
        needs.append(("LoRA activations", "float32 inputs", inputs))
    if cast and not settings.get("quantization"):
        copies = Need(0, 2 * llm.linear // llm.layers) if checkpointing else Need(2 * llm.linear)
        needs.append(("LLM weights cast by amp", f"{precision} to {run.amp}", copies))
    return needs


def _parameter_lines(model: Mapping[str, Any], shape: ModelShape, llm_shares: int) -> list[Line]:
    lines = []
    for name, branch in shape.branches.items():
        precision = model["branches"][name]["encoder"].get("precision", "fp32")
        encoder = branch.encoder
        size = encoder.parameters * BYTES[precision] + encoder.norm_parameters * 4
        detail = f"{encoder.parameters / 1e6:.1f} M, {precision}, frozen"
        lines.append(Line(encoder.label, detail, size))
    precision = model["qformer"].get("precision", "fp32")
    for name, branch in shape.branches.items():
        parts = {"Q-Former and queries": 0, "heads": 0}
        for part, count in branch.trainable.items():
            parts["Q-Former and queries" if part in ("qformer", "query_tokens") else "heads"] += (
                count
            )
        lines += [
            Line(f"{name} {part}", f"{count / 1e6:.1f} M, {precision}", count * BYTES[precision])
            for part, count in parts.items()
        ]
    if shape.llm is not None:
        lines.append(_llm_parameter_line(model["llm"], shape.llm, llm_shares))
        if shape.llm.lora:
            detail = f"{shape.llm.lora / 1e6:.1f} M, fp32"
            lines.append(Line("LoRA", detail, shape.llm.lora * 4))
    return lines


def _llm_parameter_line(settings: Mapping[str, Any], llm: LlmShape, shares: int) -> Line:
    precision = settings.get("precision", "fp32")
    quantization = settings.get("quantization")
    per_weight = QUANTIZED[quantization] if quantization else BYTES[precision]
    blocks = llm.linear * per_weight
    if shares > 1:  # and the block that is gathered
        blocks = blocks / shares + blocks / llm.layers
    size = blocks + llm.rest * BYTES[precision]
    held = f"{quantization} and {precision}" if quantization else precision
    held += f", blocks divided by {shares}" if shares > 1 else ""
    return Line("LLM", f"{(llm.linear + llm.rest) / 1e6:.1f} M, {held}, frozen", size)


def _encoder_lines(model: Mapping[str, Any], shape: ModelShape, batch: int) -> list[Line]:
    lines, waiting = [], 0
    for name, branch in shape.branches.items():
        precision = model["branches"][name]["encoder"].get("precision", "fp32")
        moment = encoder_bytes(branch.encoder, batch, BYTES[precision]) + waiting
        lines.append(Line(f"{name} encoder's largest block", f"batch {batch}, no grad", moment))
        waiting += embeds_bytes(branch.encoder, batch)  # the first encoder's output stays
    return lines


def _decoding_lines(model: Mapping[str, Any], run: RunSettings, shape: ModelShape) -> list[Line]:
    if shape.llm is None:
        return [Line("image features", f"batch {run.batch_size_eval}", 0)]
    rows = run.batch_size_eval * run.num_beams
    positions = _prefix(shape) + PROMPT_TOKENS + run.max_len
    precision = BYTES[model["llm"].get("precision", "fp32")]
    cache = cache_bytes(shape.llm, rows, positions, precision)
    logits = rows * shape.llm.vocabulary * 4 * 3  # logits, scores and their sorted form
    detail = f"{rows} rows, {positions} positions, old and new"
    return [Line("key/value cache", detail, cache), Line("decoding scores", f"{rows} rows", logits)]


PROMPT_TOKENS = 16  # a prompt of one sentence


def _prefix(shape: ModelShape) -> int:
    return sum(branch.queries for branch in shape.branches.values())


def trainable_bytes(model: Mapping[str, Any], shape: ModelShape) -> tuple[float, int]:
    """Returns the bytes and the number of the trainable values; LoRA's are float32."""
    branches = sum(count for b in shape.branches.values() for count in b.trainable.values())
    lora = shape.llm.lora if shape.llm else 0
    return branches * _trainable_bytes(model) + lora * 4, branches + lora


def _trainable_bytes(model: Mapping[str, Any]) -> int:
    return BYTES[model["qformer"].get("precision", "fp32")]
