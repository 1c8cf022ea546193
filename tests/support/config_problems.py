"""Tells what is wrong with a configuration from what a machine merely does not have."""

from __future__ import annotations

import re

# what a machine without the data, weights and GPU of a run is told
ABOUT_FILES = re.compile(
    r"does not exist|no checkpoint at|no COCO |no ROCO |no captions at|no images at|no figures at"
    r"|no MedICaT|no table at|images: no folder at|MedICaT|is in none of| lacks |sees no CUDA"
)


def other_problems(problems: list[str]) -> list[str]:
    return [problem for problem in problems if not ABOUT_FILES.search(problem)]
