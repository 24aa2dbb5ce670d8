"""The report of a solved shot: overlay videos, contact sheets, a page of plots, and the track itself."""

from deepenergy.report.flow_fields import write_flow_fields
from deepenergy.report.stages import StageRecorder
from deepenergy.report.summary import write_report

__all__ = ["StageRecorder", "write_flow_fields", "write_report"]
