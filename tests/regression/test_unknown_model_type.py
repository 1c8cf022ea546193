"""An unknown model type ended in LAVIS' bare assertion, which does not say what there is."""

from __future__ import annotations

import pytest
from lavis.models import load_model, load_model_and_preprocess

from lavis_msmedcap.common.errors import ConfigError


@pytest.mark.parametrize("load", [load_model, load_model_and_preprocess])
@pytest.mark.parametrize("name", ["msmedcap", "blip2_dual_qformer"])
def test_it_names_the_types(load: object, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' has no model_type 'big'; it has: demo, pap"):
        load(name, "big")  # type: ignore[operator]
