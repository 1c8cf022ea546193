"""Keys that ``from_config`` does not know were dropped in silence, or ended in a TypeError.

Only the command line compared them with the schema: ``qformer.dropuot=0.5`` in Python built a model
with the usual dropout.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.msmedcap import MSMedCap

Settings = dict[str, Any]


def changed(settings: Settings, path: str, value: Any) -> Settings:
    """Returns the settings with one key more."""
    settings = copy.deepcopy(settings)
    *sections, key = path.split(".")
    section = settings
    for name in sections:
        section = section[name]
    section[key] = value
    return settings


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("qformer.dropuot", 0.5, "did you mean model.qformer.dropout?"),
        ("branches.sam.trian_on", ["general"], "did you mean model.branches.sam.train_on?"),
        ("loss_weight", {"itc": 0}, "did you mean model.loss_weights?"),
        ("branches.sam.encoder.token", "channel", "did you mean model.branches.sam.encoder.tokens"),
        ("branches.sma", {}, "model.branches.sma is not a known key"),
        ("branches.sam.train_on", ["medcal"], "did you mean medical?"),
        ("max_txt_len", "three", "model.max_txt_len is 'three'"),
    ],
)
def test_stage_1(stage1_settings: Settings, path: str, value: Any, message: str) -> None:
    settings = changed(stage1_settings, path, value)
    for given in (settings, OmegaConf.create(settings)):
        with pytest.raises(ConfigError) as caught:
            Blip2DualQformer.from_config(given)
        (problem,) = caught.value.problems
        assert message in problem


def test_numbers_in_quotes_are_numbers(stage1_settings: Settings) -> None:
    settings = changed(stage1_settings, "branches.clip.num_query_token", "5")
    model = Blip2DualQformer.from_config(changed(settings, "qformer.dropout", "0.3"))
    assert model.query_tokens.shape == (1, 5, 16)
    assert model.settings["qformer"]["dropout"] == 0.3


def test_the_captioner(stage2_settings: Settings) -> None:
    with pytest.raises(ConfigError) as caught:
        MSMedCap.from_config(
            changed(changed(stage2_settings, "llm.precison", "bf16"), "promt", "a photo of")
        )
    assert "did you mean model.llm.precision?" in str(caught.value)
    assert "did you mean model.prompt?" in str(caught.value)


@pytest.mark.parametrize("name", ["blip2_dual_qformer", "msmedcap_image_text_matching", "msmedcap"])
def test_packaged_settings_are_known(name: str) -> None:
    cls = registry.get_model_class(name)
    for model_type, file in cls.PRETRAINED_MODEL_CONFIG_DICT.items():
        settings = OmegaConf.load(package_path(file)).model
        settings.offline = "yes"  # so that it ends before the weights are looked for
        with pytest.raises(ConfigError) as caught:
            cls.from_config(settings)
        (problem,) = caught.value.problems
        assert problem.startswith("model.offline is 'yes'"), model_type
