"""METEOR 1.5 through the jar that pycocoevalcap ships, without its deadlocks."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from lavis_msmedcap.evaluation.metrics.corpus import (
    Corpus,
    Metric,
    MetricResult,
    MetricSkippedError,
)
from lavis_msmedcap.evaluation.metrics.java import JAVA_OPTIONS, JavaError, coco_folder, find_java

_JAR = "meteor-1.5.jar"
_START_SECONDS = 120.0
_SECONDS_PER_CAPTION = 0.05  # 1 ms is usual


@contextmanager
def meteor() -> Iterator[Metric]:
    """Starts METEOR once; the metric that it yields scores any number of corpora.

    The start takes about ten seconds (a paraphrase table of 60 MB). The Java process is stopped
    when the block ends, whatever happened inside.

    Raises:
        MetricSkippedError: If Java or the jar is missing.
    """
    try:
        command = [find_java(), *JAVA_OPTIONS, "-jar", str(coco_folder("meteor") / _JAR)]
    except JavaError as error:
        raise MetricSkippedError(str(error)) from error
    command += ["-", "-", "-stdio", "-l", "en", "-norm"]
    # Messages go to a file: a pipe that nobody reads would fill up and stop the program.
    with tempfile.TemporaryFile() as messages, _MeteorProcess(command, messages) as process:
        yield process.score


class _MeteorProcess:
    """A running METEOR program: one line of statistics per caption, then one line of scores."""

    def __init__(self, command: Sequence[str], messages: IO[bytes]) -> None:
        self._messages = messages
        self._statistics: dict[str, str] = {}
        self._expired = False
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages
        )

    def __enter__(self) -> _MeteorProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue

    def score(self, corpus: Corpus) -> MetricResult:
        """Scores a corpus; captions already seen in another corpus are not counted again."""
        limit = _START_SECONDS + _SECONDS_PER_CAPTION * len(corpus)
        watchdog = threading.Timer(limit, self._expire)
        watchdog.start()
        try:
            return self._score(corpus)
        except (BrokenPipeError, ValueError) as error:
            reason = f"no answer within {limit:.0f} s" if self._expired else str(error)
            raise JavaError(f"METEOR stopped: {reason}; it said: {self._last_words()}") from error
        finally:
            watchdog.cancel()

    def _score(self, corpus: Corpus) -> MetricResult:
        lines = [
            " ||| ".join(["SCORE", *references, caption])
            for caption, references in zip(corpus.caption_tokens, corpus.reference_tokens)
        ]
        for line in lines:
            if line not in self._statistics:
                self._send(line)
                self._statistics[line] = self._receive()
        self._send(" ||| ".join(["EVAL", *(self._statistics[line] for line in lines)]))
        values = [float(self._receive()) for _ in lines]
        total = float(self._receive())  # over the summed statistics, not the mean of the values
        return MetricResult({"METEOR": total}, {"METEOR": values})

    def _send(self, line: str) -> None:
        stream = self._process.stdin
        assert stream is not None
        stream.write(f"{line}\n".encode())
        stream.flush()

    def _receive(self) -> str:
        stream = self._process.stdout
        assert stream is not None
        line = stream.readline()
        if not line:
            raise BrokenPipeError("the program ended")
        return line.decode().strip()

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()

    def _last_words(self) -> str:
        self._messages.seek(0)
        text = self._messages.read().decode(errors="replace").strip()
        return text[-500:] or "nothing"
