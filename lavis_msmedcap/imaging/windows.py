"""Which part of a scan's values becomes black to white: the window of a radiologist.

Centers and widths of the presets are in Hounsfield units, as customary in CT reading.
"""

from __future__ import annotations

from dataclasses import dataclass

from lavis_msmedcap.common.config_check import describe_unknown
from lavis_msmedcap.common.errors import ConfigError

PRESETS: dict[str, tuple[float, float]] = {
    "bone": (400, 1800),
    "brain": (40, 80),
    "liver": (30, 150),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "soft_tissue": (40, 400),
    "spine": (50, 250),
    "stroke": (40, 40),
    "subdural": (75, 215),
    "temporal_bone": (600, 2800),
}


@dataclass(frozen=True)
class Window:
    """What window to apply to greyscale DICOM files, and to NIfTI slices.

    Attributes:
        index: Which of the windows that the file names, counted from 0.
        preset: Name of `PRESETS`; it applies to DICOM files in Hounsfield units. Others, and NIfTI,
            take their own window.
        center: Value that becomes middle grey, with ``width``: for all greyscale images.
        width: Distance from black to white.

    Raises:
        ConfigError: If the values do not fit together.
    """

    index: int = 0
    preset: str | None = None
    center: float | None = None
    width: float | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.index < 0:
            problems.append(f"window.index is {self.index}; expected 0 or more")
        if self.preset is not None and self.preset not in PRESETS:
            problems.append(describe_unknown("window.preset", self.preset, PRESETS))
        if (self.center is None) != (self.width is None):
            problems.append("window.center and window.width belong together; give both or none")
        if self.width is not None and self.width < 1:
            problems.append(f"window.width is {self.width:g}; expected 1 or more")
        if self.preset is not None and self.center is not None:
            problems.append("window.preset and window.center exclude each other; give one of them")
        if problems:
            raise ConfigError(problems)

    def chosen(self, hounsfield: bool) -> tuple[float, float] | None:
        """Returns center and width if they do not come from the file.

        Args:
            hounsfield: Whether the values are Hounsfield units.
        """
        if self.center is not None and self.width is not None:
            return self.center, self.width
        if self.preset is not None and hounsfield:
            return PRESETS[self.preset]
        return None


def linear_range(center: float, width: float, exact: bool = False) -> tuple[float, float]:
    """Returns the values that become black and white.

    Args:
        center: Window center.
        width: Window width, at least 1.
        exact: DICOM's function LINEAR_EXACT; otherwise LINEAR, whose window lies half a value
            lower and is one value narrower (PS3.3 C.11.2.1.2).
    """
    if exact:
        return center - width / 2, center + width / 2
    return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
