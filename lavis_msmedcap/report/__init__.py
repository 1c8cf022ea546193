"""Pages and tables for people: scores, images, references and captions."""

from __future__ import annotations

from lavis_msmedcap.report.html import write_report
from lavis_msmedcap.report.pretraining import format_recalls, write_pretraining_report
from lavis_msmedcap.report.table import format_scores

__all__ = ["format_recalls", "format_scores", "write_pretraining_report", "write_report"]
