"""`plain` handed nested OmegaConf nodes on, because a DictConfig passes for a Mapping.

Checkpoints could then not be written: their header holds the settings as JSON.
"""

from __future__ import annotations

import json
from typing import Any

from omegaconf import OmegaConf

from lavis_msmedcap.models.base import plain
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer


def test_plain_converts_nested_nodes() -> None:
    config = OmegaConf.create({"size": 3, "inner": {"sizes": [1, "${size}"]}})
    converted = plain(config)
    assert type(converted) is dict
    assert type(converted["inner"]) is dict
    assert type(converted["inner"]["sizes"]) is list
    assert converted["inner"]["sizes"] == [1, 3]


def test_settings_from_omegaconf_get_into_the_header(stage1_settings: dict[str, Any]) -> None:
    model = Blip2DualQformer.from_config(OmegaConf.create(stage1_settings))
    assert json.loads(model.checkpoint_metadata()["model"]) == stage1_settings
