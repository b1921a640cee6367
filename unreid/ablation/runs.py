"""Runs the trainings of a grid, several at once; a failed one does not stop the others.

What a grid knows of a run lies in the run's folder, so a grid that was stopped goes on where it
was: finished runs are skipped, half-trained ones resumed.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unreid.ablation.grid import Run
from unreid.config import config_hash, load_config
from unreid.reading.json_file import read_json

#: What a run says goes here, in its folder.
OUTPUT = "output.txt"
#: Seconds between two looks at the running trainings, and between two lines about them.
POLL, REPORT = 0.2, 60.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its results, or in words why there are none."""

    run: Run
    results: dict[str, Any] | None
    error: str = ""
    skipped: bool = False


def read_results(run: Run) -> dict[str, Any] | None:
    """``results.json`` of a run that trained and was scored to the end, else None."""
    try:
        content = read_json(Path(run.folder, "results.json"))
    except (OSError, ValueError):
        return None
    return content if content.get("labels") and content.get("after") else None


def has_its_settings(run: Run) -> bool:
    """Whether what lies in the run's folder was made with the very settings of ``run``."""
    path = os.path.join(run.folder, "config.yaml")
    if not os.path.isfile(path):
        return False
    try:
        cfg, _ = load_config(path)
    except (KeyError, ValueError, OSError):  # of another version, or cut off
        return False
    return config_hash(cfg) == run.hash


def is_finished(run: Run) -> bool:
    """Whether the run needs no more training."""
    return read_results(run) is not None and has_its_settings(run)


def progress(run: Run) -> float:
    """The share of its epochs that a run has begun after the first, from its label files."""
    labels = Path(run.folder, "labels")
    found = [re.fullmatch(r"epoch_(\d+)\.npz", name) for name in _names(labels)]
    newest = max((int(match[1]) for match in found if match), default=0)
    return min(1.0, newest / run.epochs)


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


class Job:
    """One training in a process of its own.

    Args:
        run: what to train.
        command: the training program and what runs it.
        environment: of the process.
    """

    def __init__(self, run: Run, command: Sequence[str], environment: dict[str, str]) -> None:
        self.run = run
        os.makedirs(run.folder, exist_ok=True)
        resumed = has_its_settings(run)
        # Labels of an earlier run with other settings say nothing of this one's progress.
        self.at_start = progress(run) if resumed else 0.0
        words = [*command, "--config-file", run.config_file, *(["--resume"] if resumed else [])]
        self.started = time.monotonic()
        with open(os.path.join(run.folder, OUTPUT), "wb") as file:
            self.process = subprocess.Popen(
                [*words, *run.opts], stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, env=environment,
            )  # fmt: skip

    def outcome(self) -> Outcome | None:
        """None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        results = read_results(self.run)
        if code == 0 and results is not None:
            return Outcome(self.run, results)
        why = f"exit code {code}" if code else "it left no complete results.json"
        return Outcome(self.run, None, f"{why}: {self._last_words()}")

    def _last_words(self) -> str:
        text = Path(self.run.folder, OUTPUT).read_text(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"(\w*error|\w+\.\w+Error)\b", line, re.I)]
        return (errors or lines or ["no output"])[-1]

    def stop(self) -> None:
        """End the process, politely first."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run_all(
    runs: Sequence[Run],
    command: Sequence[str],
    *,
    jobs: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """Train what is not finished, ``jobs`` at a time.

    Args:
        runs: of one grid.
        command: the words before ``--config-file``, such as a Python and ``train_net.py``.
        jobs: processes at once; the machine's threads are divided among them unless
            ``OMP_NUM_THREADS`` is set.
        say: takes one line of progress at a time.

    Returns:
        One outcome per run, in the order of ``runs``.

    Raises:
        KeyboardInterrupt: after the running trainings were ended.
    """
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    outcomes: dict[str, Outcome] = {}
    waiting: list[Run] = []
    for run in runs:
        if is_finished(run):
            outcomes[run.folder] = Outcome(run, read_results(run), skipped=True)
            say(f"[{len(outcomes)}/{len(runs)}] {run.name}: finished before")
        else:
            waiting.append(run)
    running: list[Job] = []
    clock = Clock(jobs)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(Job(waiting.pop(0), command, environment))
                say(f"{running[-1].run.name}: started, {running[-1].run.folder}")
            time.sleep(POLL)
            for job in list(running):
                outcome = job.outcome()
                if outcome is None:
                    continue
                running.remove(job)
                outcomes[job.run.folder] = outcome
                clock.note(job)
                done = f"[{len(outcomes)}/{len(runs)}] {job.run.name}: {summary(outcome)}"
                say(done + clock.left(running, waiting))
            if running and clock.due():
                parts = [f"{job.run.name} {100 * progress(job.run):.0f} %" for job in running]
                say(f"running: {'; '.join(parts)}{clock.left(running, waiting)}")
    finally:
        for job in running:
            job.stop()
    return [outcomes[run.folder] for run in runs]


def summary(outcome: Outcome) -> str:
    """A run's main scores, or why there are none, in a few words."""
    if outcome.results is None:
        return f"FAILED, {outcome.error} (all it said: {os.path.join(outcome.run.folder, OUTPUT)})"
    after, labels = outcome.results["after"], outcome.results["labels"]
    words = [f"{name} {after[name]:.1f}" for name in ("mAP", "Rank-1") if name in after]
    words += [f"ARI {labels['ari']:.3f}"] if "ari" in labels else []
    return ", ".join(words) or "done"


class Clock:
    """Guesses when a grid will be done, from how fast its epochs were."""

    def __init__(self, jobs: int) -> None:
        self.jobs, self.last = jobs, time.monotonic()
        self.seconds, self.epochs = 0.0, 0.0

    def note(self, job: Job) -> None:
        """Learn from a run that ended well; a failed one says nothing of the others' length."""
        if job.process.returncode == 0:
            self.seconds += time.monotonic() - job.started
            self.epochs += job.run.epochs * (1 - job.at_start)

    def due(self) -> bool:
        """Whether it is time for another line about what runs."""
        if time.monotonic() - self.last < REPORT:
            return False
        self.last = time.monotonic()
        return True

    def left(self, running: Sequence[Job], waiting: Sequence[Run]) -> str:
        """``; about 12 min left``, or nothing as long as nothing is known."""
        seconds, epochs = self.seconds, self.epochs
        for job in running:
            seconds += time.monotonic() - job.started
            epochs += job.run.epochs * max(0.0, progress(job.run) - job.at_start)
        if epochs <= 0 or not (running or waiting):
            return ""
        rest = sum(job.run.epochs * (1 - progress(job.run)) for job in running)
        rest += sum(run.epochs for run in waiting)
        minutes = rest * seconds / epochs / 60 / min(self.jobs, len(running) + len(waiting))
        return f"; about {minutes:.0f} min left" if minutes >= 1 else "; less than a minute left"
