"""The Java programs that pycocoevalcap ships, run so that they cannot hang or mix up captions."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lavis_msmedcap.common.errors import MSMedCapError
from lavis_msmedcap.evaluation.metrics.tokenize import sanitize

TOKENIZER = "ptb-java"

# A German or French locale would print decimal commas, and the C locale would lose accents.
JAVA_OPTIONS = ("-Xmx1G", "-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")

_TOKENIZER_JAR = "stanford-corenlp-3.4.1.jar"
_TOKENIZER_CLASS = "edu.stanford.nlp.process.PTBTokenizer"
# As published: the bracket names are in upper case, so the lower-cased ones pass the filter.
_PUNCTUATION = frozenset(
    {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--"}
    | {"...", ";"}
)


class JavaError(MSMedCapError, RuntimeError):
    """A Java program that is missing or does not answer as it should."""


def find_java() -> str:
    """Returns the path of the ``java`` command.

    Raises:
        JavaError: If there is none on the PATH.
    """
    java = shutil.which("java")
    if java is None:
        raise JavaError("no 'java' on the PATH; install a Java runtime (8 or newer)")
    return java


def coco_folder(part: str) -> Path:
    """Returns the folder of pycocoevalcap that holds the jar of one of its parts.

    Args:
        part: ``tokenizer`` or ``meteor``.

    Raises:
        JavaError: If pycocoevalcap is not installed.
    """
    spec = find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise JavaError("pycocoevalcap is not installed; run: pip install pycocoevalcap")
    return Path(next(iter(spec.submodule_search_locations))) / part


def java_tokenize(captions: Sequence[str], timeout: float = 600.0) -> list[str]:
    """Tokenizes captions with the original Java tokenizer and the COCO punctuation filter.

    Args:
        captions: Captions; line breaks inside them are replaced first.
        timeout: Seconds after which the program is killed.

    Returns:
        One string of tokens joined by single spaces per caption.

    Raises:
        JavaError: If Java is missing, fails, takes too long, or returns another number of lines.
    """
    command = [find_java(), *JAVA_OPTIONS, "-cp", str(coco_folder("tokenizer") / _TOKENIZER_JAR)]
    command += [_TOKENIZER_CLASS, "-preserveLines", "-lowerCase"]
    text = "".join(f"{sanitize(caption)}\n" for caption in captions)
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise JavaError(f"the Java tokenizer did not finish within {timeout:.0f} s") from None
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip()[-500:]
        raise JavaError(f"the Java tokenizer failed with status {done.returncode}: {reason}")
    lines = done.stdout.decode().split("\n")[:-1]
    if len(lines) != len(captions):
        raise JavaError(
            f"the Java tokenizer returned {len(lines)} lines for {len(captions)} captions; "
            "use the tokenizer 'ptb-py'"
        )
    return [" ".join(word for word in line.split() if word not in _PUNCTUATION) for line in lines]
