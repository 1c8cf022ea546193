"""The registered dataset builders; importing this package registers them.

Files are read where they lie: nothing is downloaded or copied. How a configuration names a place
says `lavis_msmedcap.datasets.places`. Real and embedded data go through the same readers.
"""

from lavis_msmedcap.datasets.builders.base import MedCapBuilder, locate
from lavis_msmedcap.datasets.builders.coco import COCO2014CaptionBuilder
from lavis_msmedcap.datasets.builders.medicat import MedICaTBuilder
from lavis_msmedcap.datasets.builders.roco import ROCOBuilder

__all__ = [
    "COCO2014CaptionBuilder",
    "MedCapBuilder",
    "MedICaTBuilder",
    "ROCOBuilder",
    "locate",
]
