from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.runners.settings import RunSettings


def read(text: str) -> RunSettings:
    return RunSettings.from_run_cfg(OmegaConf.create(text))


def test_defaults_of_an_empty_section():
    assert RunSettings.from_run_cfg(OmegaConf.create({})) == RunSettings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amp: off", "off"),
        ("amp: false", "off"),
        ("amp: null", "off"),
        ("amp: true", "fp16"),
        ("amp: bf16", "bf16"),
        ("amp: 'off'", "off"),
    ],
)
def test_amp_in_all_its_spellings(text: str, expected: str):
    assert read(text).amp == expected


def test_numbers_may_be_written_as_text():
    settings = read("{init_lr: '1e-4', batch_size_train: '8', max_epoch: 3.0}")
    assert (settings.init_lr, settings.batch_size_train, settings.max_epoch) == (1e-4, 8, 3)


def test_null_switches_clipping_off_and_absence_leaves_it_on():
    assert read("clip_grad_norm: null").clip_grad_norm is None
    assert read("{}").clip_grad_norm == 1.0


def test_a_switch_is_true_or_false_and_no_text():
    assert read("deterministic: true").deterministic
    assert not read("deterministic: null").deterministic
    with pytest.raises(ConfigError, match=r"run\.deterministic is 'false'; expected true or false"):
        read("deterministic: 'false'")


def test_null_splits_are_empty_and_one_name_is_a_list():
    settings = read("{valid_splits: null, test_splits: test}")
    assert settings.valid_splits == ()
    assert settings.test_splits == ("test",)


def test_every_problem_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        read(
            "{batch_size_train: 0, init_lr: fast, lr_sched: cosine, amp: half, max_epoch: 1.5,"
            " clip_grad_norm: 0, train_dataset_ratios: [9, 1]}"
        )
    message = str(caught.value)
    for key in (
        "batch_size_train",
        "init_lr",
        "lr_sched",
        "amp",
        "max_epoch",
        "clip_grad_norm",
        "train_dataset_ratios",
    ):
        assert f"run.{key}" in message
    assert len(caught.value.problems) == 7
    assert "linear_warmup_cosine_lr" in message


def test_ratios():
    assert read("train_dataset_ratios: {roco: 2, medicat: '0.5'}").train_dataset_ratios == {
        "roco": 2.0,
        "medicat": 0.5,
    }
    with pytest.raises(ConfigError, match=r"train_dataset_ratios\.roco"):
        read("train_dataset_ratios: {roco: -1}")


def test_a_training_of_so_many_steps():
    by_steps = read("{max_iters: 25, iters_per_inner_epoch: 10, accum_grad_iters: 2}")
    assert by_steps.epoch_samples(world_size=4) == 10 * 2 * 4
    assert (by_steps.epochs(10), by_steps.total_steps(10)) == (3, 25)
    plan = by_steps.schedule_plan(10)
    assert (plan.total_steps, plan.steps_per_epoch) == (25, 10)
    by_epochs = read("{max_epoch: 3, samples_per_epoch: 64}")
    assert by_epochs.epoch_samples(world_size=4) == 64
    assert (by_epochs.epochs(10), by_epochs.total_steps(10)) == (3, 30)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "{max_epoch: 3, max_iters: 10}",
            r"max_epoch is 3 and run\.max_iters is 10",
        ),
        (
            "{iters_per_inner_epoch: 5}",
            r"iters_per_inner_epoch is 5, but run\.max_iters",
        ),
        (
            "{max_iters: 9, iters_per_inner_epoch: 5, samples_per_epoch: 64}",
            r"iters_per_inner_epoch is 5 and run\.samples_per_epoch is 64",
        ),
    ],
)
def test_lengths_that_contradict_each_other(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        read(text)
    assert read(text.replace("{", "{evaluate: true, ", 1)).evaluate
