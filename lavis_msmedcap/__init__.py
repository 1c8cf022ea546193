"""MSMedCap for LAVIS: medical image captioning with a CLIP branch and a SAM branch.

Importing this package costs microseconds: neither torch nor LAVIS is imported. It installs an
import hook (`lavis_msmedcap._autoload`) that registers the models, datasets, processors, tasks and
runners of this package as soon as ``lavis`` is imported, and that lets ``python -m lavis.train``
and ``python -m lavis.evaluate`` be found. An installed package does this at interpreter start.
"""

__version__ = "0.1.0"

from lavis_msmedcap._autoload import install as _install

_install()
