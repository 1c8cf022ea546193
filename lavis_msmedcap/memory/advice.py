"""What to change until a configuration fits a GPU, in the order of least harm to the result."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lavis_msmedcap.memory.estimate import Estimate, RunSettings, estimate
from lavis_msmedcap.memory.shapes import ModelShape


@dataclass(frozen=True)
class Plan:
    """A configuration on its way to fit.

    Attributes:
        model: The ``model:`` section.
        run: What of the ``run:`` section costs memory.
        shape: Sizes.
    """

    model: Mapping[str, Any]
    run: RunSettings
    shape: ModelShape

    def estimate(self) -> Estimate:
        """Estimates its memory."""
        return estimate(self.model, self.run, self.shape)

    def with_model(self, value: Any, *keys: str) -> Plan:
        """Returns a copy with one key of the ``model:`` section set."""
        model: dict[str, Any] = copy.deepcopy(dict(self.model))
        section = model
        for key in keys[:-1]:
            section = section[key]
        section[keys[-1]] = value
        return replace(self, model=model)


@dataclass(frozen=True)
class Advice:
    """One change.

    Attributes:
        options: Words for ``--options``, separated by blanks.
        harm: What it costs besides.
        total: Bytes after it and all changes before it.
        plan: The configuration then.
    """

    options: str
    harm: str
    total: float
    plan: Plan


Change = tuple[str, str, Plan]  # options, harm, the plan with the change
Proposal = Callable[[Plan], Iterator[Change]]


def advise(plan: Plan, limit: float, training: bool = True) -> list[Advice]:
    """Lists changes until the estimate is below a limit.

    Each change that does not lower the estimate is left out at first, and tried once more at the
    end: another part may decide by then.

    Args:
        plan: The configuration.
        limit: Bytes of the GPU.
        training: For training; else for inference.

    Returns:
        The changes in order; empty if the configuration fits already. The last one's ``total`` may
        still be above the limit.
    """
    proposals = INFERENCE
    if training:
        proposals = TRAINING if plan.shape.llm else TRAINING_STAGE_1
    taken: list[Advice] = []
    total = _total(plan, training)
    for _ in range(2):
        for propose in proposals:
            while total > limit:
                change = next(propose(plan), None)
                if change is None:
                    break
                options, harm, changed = change
                after = _total(changed, training)
                if after >= total:
                    break
                plan, total = changed, after
                taken.append(Advice(options, harm, total, plan))
    return taken


def _total(plan: Plan, training: bool) -> float:
    needed = plan.estimate()
    return needed.training_total if training else needed.inference_total


def _smaller_batch(plan: Plan) -> Iterator[Change]:
    """Makes the batch at most half as large; accumulation keeps the images per optimizer step."""
    batch, steps = plan.run.batch_size_train, plan.run.accum_grad_iters
    least = _smallest_batch(plan)
    if batch // 2 < least:
        return
    harm = "none to the captioner" if plan.shape.llm else "ITC and ITM see fewer negatives at once"
    divisors = [size for size in range(least, batch // 2 + 1) if batch % size == 0]
    smaller = divisors[-1] if divisors else batch // 2
    more = round(batch * steps / smaller)
    if not divisors:
        harm += f"; {smaller * more} images per optimizer step instead of {batch * steps}"
    run = replace(plan.run, batch_size_train=smaller, accum_grad_iters=more)
    options = f"run.batch_size_train={smaller} run.accum_grad_iters={more}"
    yield options, harm, replace(plan, run=run)


def _smaller_eval_batch(plan: Plan) -> Iterator[Change]:
    batch = plan.run.batch_size_eval
    if batch // 2 >= _smallest_batch(plan):
        run = replace(plan.run, batch_size_eval=batch // 2)
        harm = "slower" if plan.shape.llm else "slower; losses of another batch size"
        yield f"run.batch_size_eval={batch // 2}", harm, replace(plan, run=run)


def _smallest_batch(plan: Plan) -> int:
    """A stage-1 batch of one image has no negative: ITC is 0 then, and ITM absent."""
    return 1 if plan.shape.llm else 2


def _mixed_precision(plan: Plan) -> Iterator[Change]:
    if plan.run.amp == "off":
        run = replace(plan.run, amp="bf16")
        yield "run.amp=bf16", "rounding of activations", replace(plan, run=run)


def _llm_in_the_type_of_amp(plan: Plan) -> Iterator[Change]:
    if plan.shape.llm is None or plan.run.amp == "off":
        return
    if plan.model["llm"].get("precision", "fp32") == "fp32":
        harm = "little under amp, which casts its weights to it anyway"
        yield _set(plan, harm, plan.run.amp, "llm", "precision")


def _llm_halved(plan: Plan) -> Iterator[Change]:
    if plan.shape.llm is not None and plan.model["llm"].get("precision", "fp32") == "fp32":
        # without loss scaling a training with an LLM in fp16 would lose small gradients
        usual = "bf16" if plan.run.trains else "fp16"
        kind = usual if plan.run.amp == "off" else plan.run.amp
        yield _set(plan, "rounding of weights", kind, "llm", "precision")


def _llm_checkpointing(plan: Plan) -> Iterator[Change]:
    if plan.shape.llm is not None and not plan.model["llm"].get("gradient_checkpointing"):
        harm = "same result, about a third more time in the LLM"
        yield _set(plan, harm, True, "llm", "gradient_checkpointing")


def _qformer_checkpointing(plan: Plan) -> Iterator[Change]:
    if not plan.model["qformer"].get("gradient_checkpointing"):
        harm = "same result, about a third more time in the Q-Formers"
        yield _set(plan, harm, True, "qformer", "gradient_checkpointing")


def _encoders_halved(plan: Plan) -> Iterator[Change]:
    for name in reversed(list(plan.shape.branches)):  # SAM's attention is the largest
        if plan.model["branches"][name]["encoder"].get("precision", "fp32") == "fp32":
            harm = "rounding of image features"
            yield _set(plan, harm, "fp16", "branches", name, "encoder", "precision")


def _quantization(plan: Plan) -> Iterator[Change]:
    following = {None: "int8", "int8": "nf4"}
    if plan.shape.llm is None:
        return
    value = following.get(plan.model["llm"].get("quantization"))
    if value:
        harm = "rounding of the LLM's weights; needs bitsandbytes"
        yield _set(plan, harm, value, "llm", "quantization")


def _pooled_tokens(plan: Plan) -> Iterator[Change]:
    branch = plan.shape.branches.get("sam")
    if branch is None:
        return
    encoder = plan.model["branches"]["sam"]["encoder"]
    if encoder.get("tokens", "spatial") != "spatial":
        return
    harm = "coarser detail; another model, to be trained anew from stage 1"
    options, harm, changed = _set(
        plan, harm, "spatial_pooled", "branches", "sam", "encoder", "tokens"
    )
    pooled = replace(branch.encoder, tokens=branch.encoder.tokens // encoder.get("pool", 2) ** 2)
    branches = {**plan.shape.branches, "sam": replace(branch, encoder=pooled)}
    yield options, harm, replace(changed, shape=replace(plan.shape, branches=branches))


def _set(plan: Plan, harm: str, value: Any, *keys: str) -> Change:
    written = str(value).lower() if isinstance(value, bool) else value
    return f"model.{'.'.join(keys)}={written}", harm, plan.with_model(value, *keys)


# Accumulation makes up for a smaller batch in stage 2, where samples do not see each other.
TRAINING: tuple[Proposal, ...] = (
    _smaller_batch,
    _mixed_precision,
    _llm_in_the_type_of_amp,
    _llm_checkpointing,
    _qformer_checkpointing,
    _encoders_halved,
    _quantization,
    _pooled_tokens,
)
# It does not in stage 1, where the others of a batch are the negatives.
TRAINING_STAGE_1: tuple[Proposal, ...] = (
    _qformer_checkpointing,
    _mixed_precision,
    _encoders_halved,
    _smaller_batch,
    _pooled_tokens,
)
INFERENCE: tuple[Proposal, ...] = (
    _smaller_eval_batch,
    _encoders_halved,
    _llm_halved,
    _quantization,
)
