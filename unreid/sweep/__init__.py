"""Sweeps: configs x folds x seeds, trained and compared with a baseline row in pairs."""

from unreid.sweep.grid import Run, expand
from unreid.sweep.paired import Difference, paired_difference
from unreid.sweep.report import write_report
from unreid.sweep.runs import Outcome, is_finished, run_all
from unreid.sweep.table import Record

__all__ = [
    "Difference", "Outcome", "Record", "Run", "expand", "is_finished", "paired_difference",
    "run_all", "write_report",
]  # fmt: skip
