"""How a DICOM file begins, and which of its elements are read at all.

Without pydicom, whose import takes longer than reading most pictures.
"""

from __future__ import annotations

SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")
HEAD_BYTES = 132  # of a file, to recognise it by
# nothing here names a person, a place or a day
DESCRIPTION = (
    "SOPClassUID",
    "Modality",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelAspectRatio",
    "RedPaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
PIXELS = (
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)


def is_dicom(head: bytes) -> bool:
    """Tells by the first `HEAD_BYTES` bytes whether a file is DICOM.

    Files without preamble are known by their first element, which is of group 0002 or 0008 and
    begins like no other format read here; `dicom.read_dicom` then asks for more.
    """
    return head[128:132] == b"DICM" or has_no_preamble(head)


def has_no_preamble(head: bytes) -> bool:
    """Tells whether a file starts with its first element, as old scanners write."""
    if head[128:132] == b"DICM" or head[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    implicit = head[6:8] == b"\x00\x00"  # a first element of less than 64 KB
    return len(head) == HEAD_BYTES and head[3:4] == b"\x00" and (explicit or implicit)
