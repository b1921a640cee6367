"""Parallel training of the runs of a sweep; a failed run does not stop the others.

The state of a run is stored in its folder. A restarted sweep skips finished runs and resumes
unfinished ones if settings, code and images are the same.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unreid.config import config_hash, load_config
from unreid.engine.atomic import save_json
from unreid.reading.epochs_file import EPOCHS, read_epochs
from unreid.reading.json_file import read_json
from unreid.sweep.code_version import EquivalentCode, package_root
from unreid.sweep.grid import Run
from unreid.sweep.rows import SCORES, Provenance

#: The training program.
COMMAND = (sys.executable, "-m", "unreid.sweep.worker")
#: File of a run's output, and file of its provenance.
OUTPUT, NOTE = "output.txt", "sweep.json"
#: Seconds between two checks of the running trainings, and between two progress lines.
POLL, REPORT = 0.2, 60.0


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run: its results, or the reason why there are none."""

    run: Run
    results: dict[str, Any] | None
    error: str = ""
    skipped: bool = False
    scores: dict[str, Any] | None = None


@dataclass(frozen=True)
class Wanted:
    """Required provenance and scores of a run in a folder.

    Attributes:
        provenance: Code and images; None accepts any.
        equal: Code hashes that count as one.
        settings: Names of test settings that it must have scores under.
    """

    provenance: Provenance | None = None
    equal: EquivalentCode = field(default_factory=EquivalentCode)
    settings: tuple[str, ...] = ()


def read_results(run: Run) -> dict[str, Any] | None:
    """Return ``results.json`` of a run that was trained and evaluated to the end, else None."""
    try:
        content = read_json(Path(run.folder, "results.json"))
    except (OSError, ValueError):
        return None
    return content if content.get("labels") and content.get("after") else None


def read_scores(run: Run, settings: Sequence[str]) -> dict[str, Any] | None:
    """Return scores by name of the test setting, or None if one of ``settings`` is missing."""
    if not settings:
        return {}
    try:
        content = read_json(Path(run.folder, SCORES))
    except (OSError, ValueError):
        return None
    return {n: content[n] for n in settings} if set(settings) <= content.keys() else None


def has_its_settings(run: Run, wanted: Wanted | None = None) -> bool:
    """Return whether the run's folder was made with these settings, code and images."""
    path = os.path.join(run.folder, "config.yaml")
    if not os.path.isfile(path):
        return False
    try:
        cfg, _ = load_config(path)
    except (KeyError, ValueError, OSError):  # written by another version, or incomplete
        return False
    return config_hash(cfg) == run.hash and _has_provenance(run, wanted or Wanted())


def _has_provenance(run: Run, wanted: Wanted) -> bool:
    if wanted.provenance is None:
        return True
    try:
        note = read_json(Path(run.folder, NOTE))
    except (OSError, ValueError):
        return False
    code, images = note.get("code"), note.get("images")
    if not isinstance(code, str) or images != wanted.provenance.images:
        return False
    return wanted.equal.same(code, wanted.provenance.code)


def is_finished(run: Run, wanted: Wanted | None = None) -> bool:
    """Return whether the run needs no more training."""
    wanted = wanted or Wanted()
    finished = read_results(run) is not None and has_its_settings(run, wanted)
    return finished and read_scores(run, wanted.settings) is not None


def progress(run: Run) -> float:
    """Return the fraction of epochs that a run has finished, from ``epochs.jsonl``."""
    try:
        records, _ = read_epochs(Path(run.folder, EPOCHS))
    except (FileNotFoundError, ValueError):
        return 0.0
    return min(1.0, (records[-1].epoch + 1) / run.epochs) if records else 0.0


class Job:
    """One training in a separate process.

    Args:
        run: The run.
        command: Command line of the training program, without options.
        environment: Environment variables of the process.
        wanted: Required provenance and scores.
    """

    def __init__(
        self,
        run: Run,
        command: Sequence[str],
        environment: dict[str, str],
        wanted: Wanted | None = None,
    ) -> None:
        self.run = run
        self.wanted = wanted = wanted or Wanted()
        os.makedirs(run.folder, exist_ok=True)
        resumed = has_its_settings(run, wanted)
        if wanted.provenance is not None:
            save_json(os.path.join(run.folder, NOTE), asdict(wanted.provenance))
        # Labels of an earlier run with other settings must not count as progress.
        self.at_start = progress(run) if resumed else 0.0
        words = [*command, "--config-file", run.config_file, *(["--resume"] if resumed else [])]
        words += [word for name in wanted.settings for word in ("--score", name)]
        if run.fold is not None:
            environment = {**environment, "FASTREID_DATASETS": run.fold.root}
        self.started = time.monotonic()
        with open(os.path.join(run.folder, OUTPUT), "wb") as file:
            self.process = subprocess.Popen(
                [*words, *run.opts], stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, env=environment,
            )  # fmt: skip

    def outcome(self) -> Outcome | None:
        """Return the outcome of the run, or None while the process runs."""
        code = self.process.poll()
        if code is None:
            return None
        results = read_results(self.run)
        scores = read_scores(self.run, self.wanted.settings)
        if code == 0 and results is not None and scores is not None:
            return Outcome(self.run, results, scores=scores)
        why = f"exit code {code}" if code else "no complete results.json"
        return Outcome(self.run, None, f"{why}: {self._error_line()}")

    def _error_line(self) -> str:
        text = Path(self.run.folder, OUTPUT).read_text(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"(\w*error|\w+\.\w+Error)\b", line, re.I)]
        return (errors or lines or ["no output"])[-1]

    def stop(self) -> None:
        """End the process: terminate first, then kill."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run_all(
    runs: Sequence[Run],
    command: Sequence[str] = COMMAND,
    *,
    jobs: int = 1,
    threads: int = 1,
    wanted: Mapping[str, Wanted] | None = None,
    say: Callable[[str], None] = lambda line: None,
    done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Train unfinished runs, ``jobs`` at a time.

    Args:
        runs: Runs of one grid.
        command: Command line before ``--config-file``.
        jobs: Number of simultaneous processes.
        threads: Threads of each process, unless ``OMP_NUM_THREADS`` is set. The number of threads
            affects rounding, so it does not depend on the machine.
        wanted: Output folder of a run -> its required provenance and scores.
        say: Called with each line of progress.
        done: Called with each outcome as soon as it is known.

    Returns:
        One outcome per run, in the order of ``runs``.

    Raises:
        KeyboardInterrupt: Raised after the running trainings were ended.
    """
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    # Use the package of this process, also if another one is installed.
    paths = [str(package_root().parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    wanted = wanted or {}
    outcomes: dict[str, Outcome] = {}
    waiting: list[Run] = []
    for run in runs:
        needed = wanted.get(run.folder, Wanted())
        if is_finished(run, needed):
            scores = read_scores(run, needed.settings)
            outcomes[run.folder] = Outcome(run, read_results(run), skipped=True, scores=scores)
            done(outcomes[run.folder])
            say(f"[{len(outcomes)}/{len(runs)}] {run.name}: finished before")
        else:
            waiting.append(run)
    running: list[Job] = []
    clock = Clock(jobs)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                running.append(Job(run, command, environment, wanted.get(run.folder)))
                say(f"{running[-1].run.name}: started, {running[-1].run.folder}")
            time.sleep(POLL)
            for job in list(running):
                outcome = job.outcome()
                if outcome is None:
                    continue
                running.remove(job)
                outcomes[job.run.folder] = outcome
                done(outcome)
                clock.note(job)
                line = f"[{len(outcomes)}/{len(runs)}] {job.run.name}: {summary(outcome)}"
                say(line + clock.left(running, waiting))
            if running and clock.due():
                parts = [f"{job.run.name} {100 * progress(job.run):.0f} %" for job in running]
                say(f"running: {'; '.join(parts)}{clock.left(running, waiting)}")
    finally:
        for job in running:
            job.stop()
    return [outcomes[run.folder] for run in runs]


def summary(outcome: Outcome) -> str:
    """Return the main scores of a run, or the reason why there are none."""
    if outcome.results is None:
        return f"FAILED, {outcome.error} (full output: {os.path.join(outcome.run.folder, OUTPUT)})"
    after, labels = outcome.results["after"], outcome.results["labels"]
    words = [f"{name} {after[name]:.1f}" for name in ("mAP", "Rank-1") if name in after]
    words += [f"ARI {labels['ari']:.3f}"] if "ari" in labels else []
    return ", ".join(words) or "done"


class Clock:
    """Estimate of the remaining time of a sweep from the speed of its epochs."""

    def __init__(self, jobs: int) -> None:
        self.jobs, self.last = jobs, time.monotonic()
        self.seconds, self.epochs = 0.0, 0.0

    def note(self, job: Job) -> None:
        """Record the duration of a finished run; failed runs are ignored."""
        if job.process.returncode == 0:
            self.seconds += time.monotonic() - job.started
            self.epochs += job.run.epochs * (1 - job.at_start)

    def due(self) -> bool:
        """Return whether the next progress line is due."""
        if time.monotonic() - self.last < REPORT:
            return False
        self.last = time.monotonic()
        return True

    def left(self, running: Sequence[Job], waiting: Sequence[Run]) -> str:
        """Return ``; about 12 min left``, or ``""`` without an estimate."""
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
