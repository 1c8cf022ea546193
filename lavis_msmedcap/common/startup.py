"""What an entry point settles before it imports LAVIS and torch."""

from __future__ import annotations

import os
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


def prepare_process() -> None:
    """Hides known third-party warnings and lets idle threads sleep."""
    _let_idle_threads_sleep()
    quiet_third_party()


def _let_idle_threads_sleep() -> None:
    """Tells OpenMP that a thread with nothing to do gives its core away instead of spinning.

    On a machine with other work, spinning threads wait for each other's time slices: with one of
    two cores taken, a training step took ten times as long. The variable is read when torch is
    loaded; one that is set already wins.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def quiet_third_party() -> None:
    """Hides warnings of the libraries below LAVIS; call it before LAVIS is imported.

    Only known messages are hidden. Filters that the user gave (``python -W``,
    ``PYTHONWARNINGS``) keep the upper hand for every other message.
    """
    for category, message in KNOWN_NOISE:
        warnings.filterwarnings("ignore", message=message, category=category)
