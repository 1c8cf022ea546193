"""Third-party warnings that a user of this package can do nothing about."""

from __future__ import annotations

import warnings

# each line: category, and the start of the message (a regular expression)
KNOWN_NOISE = (
    (FutureWarning, r"`?torch\.jit\.script`? is deprecated"),  # timm, at import
    (FutureWarning, r"`?torch\.cuda\.amp\.custom_(fwd|bwd)"),  # fairscale, at import
    (FutureWarning, r"`?torch\.cuda\.amp\.(autocast|GradScaler)"),  # LAVIS' own runner
    (FutureWarning, r"`resume_download` is deprecated"),  # transformers
    (UserWarning, r"Overwriting .* in registry"),  # timm
    (UserWarning, r"TypedStorage is deprecated"),  # transformers
    (UserWarning, r"pkg_resources is deprecated"),  # pytorch and webdataset helpers
)


def quiet_third_party() -> None:
    """Hides warnings of the libraries below LAVIS; call it before LAVIS is imported.

    Only known messages are hidden. Filters that the user gave (``python -W``,
    ``PYTHONWARNINGS``) keep the upper hand for every other message.
    """
    for category, message in KNOWN_NOISE:
        warnings.filterwarnings("ignore", message=message, category=category)
