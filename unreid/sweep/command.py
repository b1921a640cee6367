"""``unreid sweep`` after its argument checks: train, evaluate, compare, write the report."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from unreid.cli import guarded
from unreid.config import load_config
from unreid.projects import load_project
from unreid.sweep.code_version import EquivalentCode, code_hash, package_root
from unreid.sweep.equal_training import add_lines, prove_equal
from unreid.sweep.folds import Fold, given_folds, image_list_hash, make_folds, whole_data_set
from unreid.sweep.grid import Run, expand
from unreid.sweep.report import write_report
from unreid.sweep.rows import (
    Provenance,
    append_row,
    commit_of,
    find_row,
    make_row,
    read_rows,
)
from unreid.sweep.runs import COMMAND, Outcome, Wanted, is_finished, run_all
from unreid.sweep.table import Record, find_baseline


def run(args: argparse.Namespace) -> int:
    """Return 0 if all runs are finished, 1 if not, 2 for bad input, 130 after Ctrl-C."""
    if args.prove_equal:
        return guarded(lambda: prove(args))
    return guarded(lambda: sweep(args))


def prove(args: argparse.Namespace) -> int:
    """Compare two checkouts by training, and record equal code hashes in a file."""
    old, new = Path(args.prove_equal), package_root().parent
    settings = [tuple(s) for s in args.set]
    pairs = prove_equal(old, new, Path(args.output), settings=settings, say=_say)
    command = "python tools/sweep.py --prove-equal OLD --output OUT"
    command += "".join(f" --set {key} {value}" for key, value in settings)
    lines = add_lines(Path(args.equivalent_code), pairs, command)
    _say("\n".join(lines) or "the code hashes are already equal")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def sweep(args: argparse.Namespace) -> int:
    """Check all runs, train those without a current row, and write the tables."""
    settings = [tuple(s) for s in args.set]
    vary = [(key, values) for key, *values in args.vary]
    folds = _folds(args, settings)
    runs = expand(args.configs, vary, settings, args.seeds, args.output, folds)
    rows = list(dict.fromkeys(run.row for run in runs))
    baseline = find_baseline(rows, args.baseline) if args.baseline else None
    reported = _reported(args.report_folds, folds)
    if args.dry_run and not args.fold_roots:  # folds are not made, and no data set is read
        for run in runs:
            _say(f"{run.folder}: {run.name}{' (finished)' if is_finished(run) else ''}")
        return 0
    equal = EquivalentCode.read(Path(args.equivalent_code))
    provenances = _provenances(runs)
    found = {
        run.folder: find_row(
            read_rows(args.rows), run, provenances[run.folder], equal, args.test_settings
        )
        for run in runs
    }
    missing = [run for run in runs if found[run.folder][0] is None]
    if args.dry_run:
        for run in runs:
            row, stale = found[run.folder]
            _say(
                f"{run.folder}: {run.name}"
                + (" (finished)" if row else "")
                + (f" (STALE: {stale})" if stale else "")
            )
        return 0
    _say(f"{len(runs)} runs, of which {len(runs) - len(missing)} have a current row in {args.rows}")
    for run in missing:
        if found[run.folder][1]:
            _say(f"STALE {run.name}: {found[run.folder][1]}")
    errors: dict[str, str] = {}
    if args.no_training:
        errors = {run.folder: "not trained" for run in missing}
    else:
        errors = _train(args, missing, provenances, equal)
    return _report(args, runs, provenances, equal, errors, vary, baseline, reported)


def _report(
    args: argparse.Namespace,
    runs: Sequence[Run],
    provenances: dict[str, Provenance],
    equal: EquivalentCode,
    errors: dict[str, str],
    vary: Sequence[tuple[str, Sequence[str]]],
    baseline: str | None,
    reported: set[str],
) -> int:
    content = read_rows(args.rows)
    records = []
    for run in runs:
        row, stale = find_row(content, run, provenances[run.folder], equal, args.test_settings)
        error = "" if row is not None else errors.get(run.folder, "no row was written")
        record = Record(run, row, error, stale)
        if record.fold in reported or not reported:
            records.append(record)
    os.makedirs(args.output, exist_ok=True)
    table, no_plot = write_report(
        records, [key for key, _ in vary], args.output, baseline, args.test_settings
    )
    _say(f"\n{table}")
    _say(f"no plot: {no_plot}" if no_plot else f"plot: {Path(args.output, 'plot.svg')}")
    failed = sum(record.row is None for record in records)
    if failed:
        sys.stderr.write(
            f"{failed} of {len(records)} runs have no row; they are named below the table\n"
        )
    return 1 if failed else 0


def _folds(args: argparse.Namespace, settings: list[tuple[str, str]]) -> list[Fold]:
    if args.fold_roots:
        return given_folds(args.fold_roots)
    if args.folds is None:
        return []
    if args.dry_run:
        places = [Path(args.output, "folds", f"fold{number}") for number in range(args.folds)]
        return [Fold(place.name, str(place)) for place in places]
    cfg, _ = load_config(args.configs[0], [word for pair in settings for word in pair])
    folder = os.path.join(args.output, "folds")
    return make_folds(cfg, args.folds, args.fold_seed, folder, args.fold_images)


def _reported(wanted: Sequence[str], folds: Sequence[Fold]) -> set[str]:
    names = [fold.name for fold in folds]
    chosen = set()
    for name in wanted:
        full = name if name in names else f"fold{name}"
        if full not in names:
            raise KeyError(f"--report-folds {name}: no such fold; there are {', '.join(names)}")
        chosen.add(full)
    return chosen


def _provenances(runs: Sequence[Run]) -> dict[str, Provenance]:
    """Return code, images and commit of all runs, by output folder."""
    commit = commit_of(package_root().parent)
    codes, images, found = dict[str, str](), dict[object, str](), {}
    for run in runs:
        if run.project not in codes:
            codes[run.project] = _code_of(run.project)
        cfg, _ = load_config(run.config_file, run.opts)
        fold = run.fold or whole_data_set()
        key = (fold, tuple(cfg.DATASETS.NAMES), tuple(cfg.DATASETS.TESTS),
               str(cfg.UNSUP.FOLDER) if not fold.settings else "")  # fmt: skip
        if key not in images:
            images[key] = image_list_hash(cfg, fold)
        found[run.folder] = Provenance(codes[run.project], images[key], commit)
    return found


def _code_of(project: str) -> str:
    folder = load_project(project).folder
    package = folder / project.lower()
    return code_hash(package if package.is_dir() else folder)


def _train(
    args: argparse.Namespace,
    runs: Sequence[Run],
    provenances: dict[str, Provenance],
    equal: EquivalentCode,
) -> dict[str, str]:
    """Train, and append a row after each run; return the errors of runs without a row."""
    errors: dict[str, str] = {}
    wanted = {
        run.folder: Wanted(provenances[run.folder], equal, tuple(args.test_settings))
        for run in runs
    }

    def done(outcome: Outcome) -> None:
        run, provenance = outcome.run, provenances[outcome.run.folder]
        if outcome.results is None:
            errors[run.folder] = outcome.error
        elif _code_of(run.project) != provenance.code:
            errors[run.folder] = "the code has changed while it was trained"
        else:
            cfg, _ = load_config(run.config_file, run.opts)
            row = make_row(run, provenance, cfg, outcome.results, outcome.scores or {})
            append_row(args.rows, row)

    try:
        run_all(
            runs, COMMAND, jobs=args.jobs, threads=args.threads, wanted=wanted, say=_say, done=done
        )
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("the same command goes on from here") from error
    return errors
