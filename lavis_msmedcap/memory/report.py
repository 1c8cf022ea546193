"""The estimate and the advice as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lavis_msmedcap.memory.advice import Advice, Plan, advise
from lavis_msmedcap.memory.estimate import CUDA_CONTEXT, FRAGMENTATION, GIB, Line

GPU_SIZES = (16, 24, 40, 80)  # GiB


def describe(plan: Plan, gpu_gib: float | None = None) -> str:
    """Describes the memory of one process.

    Args:
        plan: The configuration.
        gpu_gib: Memory of a GPU that it should fit; adds what to change.
    """
    needed = plan.estimate()
    train, evaluate = needed.training_total, needed.inference_total
    lines = [
        "Memory of one process in GiB: an estimate, with texts at their longest (max_txt_len).",
        f"Totals add {CUDA_CONTEXT / GIB:.1f} for the CUDA context and {FRAGMENTATION - 1:.0%} for "
        "fragmentation. Encoders, backward pass and optimizer step never meet: the largest counts.",
        *(f"assumed: {note}" for note in needed.notes),
        "",
        *_table("parameters", needed.parameters),
        *_table(f"training, batch {plan.run.batch_size_train}", needed.training),
        *_table(f"inference, batch {plan.run.batch_size_eval}", needed.inference),
        f"{'total in training':<34}{train / GIB:>9.2f}",
        f"{'total in inference':<34}{evaluate / GIB:>9.2f}",
        "",
    ]
    for size in GPU_SIZES:
        lines.append(
            f"fits {size} GiB: training {_fits(train, size)}, inference {_fits(evaluate, size)}"
        )
    if gpu_gib is not None:
        lines += ["", *_advice_lines(plan, gpu_gib, True), *_advice_lines(plan, gpu_gib, False)]
    return "\n".join(lines) + "\n"


def _table(title: str, rows: Iterable[Line]) -> list[str]:
    body = [f"  {row.part:<32}{row.bytes / GIB:>9.2f}  {row.detail}" for row in rows]
    return [title, *body, ""]


def _fits(total: float, gib: float) -> str:
    return "yes" if total <= gib * GIB else "no"


def _advice_lines(plan: Plan, gib: float, training: bool) -> list[str]:
    what = "training" if training else "inference"
    needed = plan.estimate()
    total = needed.training_total if training else needed.inference_total
    if total <= gib * GIB:
        return [f"{what} fits {gib:g} GiB as it is"]
    found = advise(plan, gib * GIB, training)
    lines = [f"for {what} in {gib:g} GiB, in the order of least harm:"]
    lines += [_advice_line(number, advice) for number, advice in enumerate(found, 1)]
    if not _reached(found, gib):
        lines.append(f"  that is not enough for {gib:g} GiB: use a smaller LLM or a larger GPU")
    return lines


def _advice_line(number: int, advice: Advice) -> str:
    return f"  {number}. {advice.options}  ->  {advice.total / GIB:.2f}  ({advice.harm})"


def _reached(found: Sequence[Advice], gib: float) -> bool:
    return bool(found) and found[-1].total <= gib * GIB
