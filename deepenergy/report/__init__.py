"""The report of a solved shot: overlay videos, contact sheets, a page of plots, and the track itself."""

from deepenergy.report.stages import StageRecorder
from deepenergy.report.summary import write_report

__all__ = ["StageRecorder", "write_report"]
