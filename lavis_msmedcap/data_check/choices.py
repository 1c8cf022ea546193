"""What a check lets its user choose; imports nothing, so that ``--help`` answers at once."""

from __future__ import annotations

# which leaks a clean manifest is to be free of
FIX_GROUP, FIX_IMAGE, FIX_NONE = "group", "image", "none"
FIX_POLICIES = (FIX_GROUP, FIX_IMAGE, FIX_NONE)

# bits in which the hashes of like pictures may differ
NEAR = 4
MAX_NEAR = 6
