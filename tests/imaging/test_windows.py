from __future__ import annotations

import pytest

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.imaging.windows import Window, linear_range


def test_what_is_chosen():
    assert Window().chosen(hounsfield=True) is None
    assert Window(preset="lung").chosen(hounsfield=True) == (-600, 1500)
    assert Window(preset="lung").chosen(hounsfield=False) is None
    assert Window(center=5, width=10).chosen(hounsfield=False) == (5, 10)


def test_ranges_of_the_standard():
    # PS3.3 C.11.2.1.2.1: center 2048 and width 4096 map 0..4095 to the whole output
    assert linear_range(2048, 4096) == (0, 4095)
    assert linear_range(2048, 1) == (2047.5, 2047.5)
    assert linear_range(2048, 4096, exact=True) == (0, 4096)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "lungs"}, "did you mean 'lung'"),
        ({"index": -1}, "window.index is -1"),
        ({"center": 40}, "belong together"),
        ({"center": 40, "width": 0.5}, "expected 1 or more"),
        ({"preset": "lung", "center": 40, "width": 400}, "exclude each other"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        Window(**settings)
