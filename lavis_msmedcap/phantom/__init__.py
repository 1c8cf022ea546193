"""The embedded default: seeded image-caption phantoms in the real on-disk formats.

Facts are drawn first; the picture shows them, the caption says them, ``facts.jsonl`` records them,
and `parse_facets` reads them back from any caption:

    facts  ->  general.py, medical/render.py  ->  pixels and lesion mask
           ->  general_facts.py, medical/captions.py  ->  captions
           ->  writers/{coco,roco,medicat,rocov2,table}.py  ->  files as real data sets have them
"""

from lavis_msmedcap.phantom.facets import FACET_NAMES, Facets, compare_facets, parse_facets
from lavis_msmedcap.phantom.generate import (
    DEFAULT,
    FURTHER,
    PhantomSizes,
    ensure_phantom,
    phantom_key,
)
from lavis_msmedcap.phantom.text import DEFAULT_PROMPT, general_text, medical_text

__all__ = [
    "DEFAULT",
    "DEFAULT_PROMPT",
    "FACET_NAMES",
    "FURTHER",
    "Facets",
    "PhantomSizes",
    "compare_facets",
    "ensure_phantom",
    "general_text",
    "medical_text",
    "parse_facets",
    "phantom_key",
]
