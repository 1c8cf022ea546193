"""Advice of ``msmedcap memory`` that was refused when it was used, or that left the moments out."""

from __future__ import annotations

import re
from typing import Any

import pytest
from omegaconf import OmegaConf

from lavis_msmedcap import cli
from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.memory.advice import Plan, advise
from lavis_msmedcap.memory.estimate import GIB, RunSettings, estimate
from lavis_msmedcap.memory.shapes import read_shape
from lavis_msmedcap.run_memory import plans_of

CAPTION = "projects/msmedcap/caption.yaml"
ROW = "projects/msmedcap/table1/msmedcap_g_gm.yaml"


def plan_of(name: str, run: RunSettings, **llm: Any) -> Plan:
    content = OmegaConf.load(package_path(f"configs/models/{name}.yaml"))
    model: Any = OmegaConf.to_container(content, resolve=True)
    model["model"].get("llm", {}).update(llm)
    return Plan(model["model"], run, read_shape(model["model"]))


def test_a_training_validates_with_its_moments_alive() -> None:
    plan = plan_of("msmedcap_paper", RunSettings(batch_size_eval=4))
    alone = estimate(plan.model, RunSettings(batch_size_eval=4, trains=False), plan.shape)
    within = plan.estimate()
    moments = next(line.bytes for line in within.training if line.part == "AdamW state")
    assert within.inference_total - alone.inference_total == pytest.approx(1.05 * moments)
    averaging = RunSettings(batch_size_eval=4, averages=True)
    # the average, and the weights that wait for their return
    more = estimate(plan.model, averaging, plan.shape).inference_total - within.inference_total
    assert more == pytest.approx(1.05 * moments)


@pytest.mark.parametrize(
    ("name", "batch", "expected"),
    [
        ("msmedcap_paper", 7, "run.batch_size_train=1 run.accum_grad_iters=7"),
        ("msmedcap_paper", 9, "run.batch_size_train=3 run.accum_grad_iters=3"),
        ("blip2_dual_qformer_paper", 7, "run.batch_size_train=3 run.accum_grad_iters=2"),
    ],
)
def test_an_odd_batch_can_be_made_smaller(name: str, batch: int, expected: str) -> None:
    found = advise(plan_of(name, RunSettings(batch_size_train=batch, amp="bf16")), 1 * GIB)
    advice = next(one for one in found if "batch_size_train" in one.options)
    assert advice.options == expected
    kept = batch == advice.plan.run.batch_size_train * advice.plan.run.accum_grad_iters
    assert ("6 images per optimizer step instead of 7" in advice.harm) is not kept


def test_the_type_of_the_llm_is_one_that_a_training_may_have() -> None:
    plan = plan_of("msmedcap_paper", RunSettings(amp="bf16"), precision="fp32")
    words = [one.options for one in advise(plan, 1 * GIB, training=False)]
    assert "model.llm.precision=bf16" in words


def test_advice_for_a_file_of_stages_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["scale=paper"]
    command = ["memory", "--cfg-path", ROW, "--gpu-gib", "12", "--options", *options]
    assert cli.main(command) == 0
    told = re.findall(r"^  \d+\. (.*?)  ->", capsys.readouterr().out, flags=re.MULTILINE)
    words = [word for line in told for word in line.split()]
    assert all(word.startswith("stages.") for word in words)
    assert any(word.startswith("stages.caption.") for word in words)
    plans = plans_of(ROW, [*options, *words])
    for stage, plan in plans.items():
        if stage != "pretrain":  # which needs another kind of GPU
            assert max(plan.estimate().training_total, plan.estimate().inference_total) < 12 * GIB
