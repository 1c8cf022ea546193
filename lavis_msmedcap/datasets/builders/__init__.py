"""The registered dataset builders; importing this package registers them.

Files are read where they lie: nothing is downloaded or copied. How a configuration names a place
says `lavis_msmedcap.datasets.places`. Real and embedded data go through the same readers.
"""

from lavis_msmedcap.datasets.builders.base import MedCapBuilder, locate
from lavis_msmedcap.datasets.builders.coco import COCO2014CaptionBuilder
from lavis_msmedcap.datasets.builders.medicat import MedICaTBuilder
from lavis_msmedcap.datasets.builders.names import register_name
from lavis_msmedcap.datasets.builders.roco import ROCOBuilder
from lavis_msmedcap.datasets.builders.rocov2 import ROCOv2Builder
from lavis_msmedcap.datasets.builders.table import CaptionTableBuilder
from lavis_msmedcap.datasets.builders.webdataset import WebDatasetCaptionBuilder

__all__ = [
    "COCO2014CaptionBuilder",
    "CaptionTableBuilder",
    "MedCapBuilder",
    "MedICaTBuilder",
    "ROCOBuilder",
    "ROCOv2Builder",
    "WebDatasetCaptionBuilder",
    "locate",
    "register_name",
]
