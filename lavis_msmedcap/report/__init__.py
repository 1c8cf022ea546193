"""Pages and tables for people: scores, images, references and captions."""

from __future__ import annotations

from lavis_msmedcap.report.html import write_report
from lavis_msmedcap.report.table import format_scores

__all__ = ["format_scores", "write_report"]
