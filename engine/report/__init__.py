"""The run as one self-contained HTML page."""

from alps.engine.report.build import build_report

__all__ = ["build_report"]
