"""A grid of trainings of any config: which runs, running them, and what came of them."""

from unreid.ablation.grid import Run, expand
from unreid.ablation.report import collect, write_report
from unreid.ablation.runs import Outcome, is_finished, run_all

__all__ = ["Outcome", "Run", "collect", "expand", "is_finished", "run_all", "write_report"]
