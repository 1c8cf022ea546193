"""The estimate and the advice as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lavis_msmedcap.memory.advice import Advice, Plan, advise
from lavis_msmedcap.memory.estimate import CUDA_CONTEXT, FRAGMENTATION, GIB, Line

GPU_SIZES = (16, 24, 40, 80)  # GiB


def describe(plan: Plan, gpu_gib: float | None = None, prefix: str = "") -> str:
    """Describes the memory of one process.

    Args:
        plan: The configuration.
        gpu_gib: Memory of a GPU that it should fit; adds what to change.
        prefix: In front of every key of the advice, for example ``stages.caption.``.
    """
    needed = plan.estimate()
    totals = {"inference": needed.inference_total}
    if plan.run.trains:
        totals = {"training": needed.training_total, **totals}
    lines = [
        "Memory of one process in GiB: an estimate, with texts at their longest (max_txt_len).",
        f"Totals add {CUDA_CONTEXT / GIB:.1f} for the CUDA context and {FRAGMENTATION - 1:.0%} for "
        "fragmentation. Encoders, backward pass and optimizer step never meet: the largest counts.",
        *(f"assumed: {note}" for note in needed.notes),
        "",
        *_table("parameters", needed.parameters),
    ]
    if plan.run.trains:
        lines[2:2] = [
            f"Several processes (DDP) need {needed.gradients / GIB:.2f} more each: gradients twice."
        ]
        lines += _table(f"training, batch {plan.run.batch_size_train}", needed.training)
    lines += [
        *_table(f"inference, batch {plan.run.batch_size_eval}", needed.inference),
        *(f"{f'total in {what}':<34}{total / GIB:>9.2f}" for what, total in totals.items()),
        "",
    ]
    for size in GPU_SIZES:
        told = ", ".join(f"{what} {_fits(total, size)}" for what, total in totals.items())
        lines.append(f"fits {size} GiB: {told}")
    if gpu_gib is not None:
        lines.append("")
        for moment in totals:
            advice, plan = _advice_lines(plan, gpu_gib, moment == "training", prefix)
            lines += advice
    return "\n".join(lines) + "\n"


def _table(title: str, rows: Iterable[Line]) -> list[str]:
    body = [f"  {row.part:<32}{row.bytes / GIB:>9.2f}  {row.detail}" for row in rows]
    return [title, *body, ""]


def _fits(total: float, gib: float) -> str:
    return "yes" if total <= gib * GIB else "no"


def _advice_lines(plan: Plan, gib: float, training: bool, prefix: str) -> tuple[list[str], Plan]:
    """Returns the advice, and the configuration after it, from which further advice starts."""
    what = "training" if training else "inference"
    needed = plan.estimate()
    total = needed.training_total if training else needed.inference_total
    if total <= gib * GIB:
        return [f"{what} fits {gib:g} GiB as it is"], plan
    found = advise(plan, gib * GIB, training)
    lines = [f"for {what} in {gib:g} GiB, in the order of least harm:"]
    lines += [_advice_line(number, advice, prefix) for number, advice in enumerate(found, 1)]
    if not _reached(found, gib):
        cure = "use a smaller LLM or a larger GPU"
        if plan.shape.llm is None:
            cure = "use a larger GPU"
            if training:
                cure += ", or several with run.batch_size_train=1: they share their negatives"
        lines.append(f"  that is not enough for {gib:g} GiB: {cure}")
    return lines, found[-1].plan if found else plan


def _advice_line(number: int, advice: Advice, prefix: str) -> str:
    options = " ".join(prefix + option for option in advice.options.split())
    return f"  {number}. {options}  ->  {advice.total / GIB:.2f}  ({advice.harm})"


def _reached(found: Sequence[Advice], gib: float) -> bool:
    return bool(found) and found[-1].total <= gib * GIB
