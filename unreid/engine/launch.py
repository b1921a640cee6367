"""Launch several processes by torch elastic (torchrun), with the options of fast-reid.

torch elastic starts the same command once per process, with the rank in the environment. If a
process fails or is killed, it sends SIGTERM to the others (SIGKILL after 30 s), and restarts all of
them if ``--max-restarts`` allows it. Each process writes its error to a file (``record`` of torch);
the launcher prints the first of these errors.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from unreid.cli import EXPECTED, error_text, print_interruption
from unreid.engine.interrupt import exit_code, raise_on_signals, received_signal, reraise_signal

_URL = re.compile(r"tcp://([^:/\[\]]+|\[[0-9a-fA-F:]+\]):(\d+)")

#: Upper bound, in seconds, of the time until the launcher detects a failed process and sends
#: SIGTERM to the others.
DETECTION_SECONDS = 10.0


def started_by_launcher() -> bool:
    """Return whether torchrun, or :func:`launch`, started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def restarted() -> bool:
    """Return whether torch elastic has restarted this process after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the four launch options of fast-reid and ``--max-restarts`` of torchrun."""
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine, one GPU each, or on CPUs (default 1)",
    )
    parser.add_argument(
        "--num-machines",
        type=int,
        default=1,
        metavar="N",
        help="number of machines; run the same command on each of them (default 1)",
    )
    parser.add_argument(
        "--machine-rank", type=int, default=0, metavar="R", help="number of this machine, from 0"
    )
    parser.add_argument(
        "--dist-url",
        default="auto",
        metavar="tcp://HOST:PORT",
        help="address of machine 0; with one machine a free port is chosen",
    )
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=0,
        metavar="N",
        help="restart all processes after a failure, and resume, at most N times (default 0)",
    )


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Check the ranges of the options; exit with a usage error if one is out of range."""
    for name, least in (("num_gpus", 1), ("num_machines", 1), ("max_restarts", 0)):
        if getattr(args, name) < least:
            parser.error(
                f"--{name.replace('_', '-')} must be >= {least}, got {getattr(args, name)}"
            )
    if not 0 <= args.machine_rank < args.num_machines:
        parser.error(
            f"--machine-rank must be in 0..{args.num_machines - 1} with --num-machines"
            f" {args.num_machines}, got {args.machine_rank}"
        )
    if args.dist_url == "auto":
        if args.num_machines > 1:
            parser.error(
                "--dist-url tcp://HOST:PORT of machine 0 is required with --num-machines"
                f" {args.num_machines}"
            )
    elif not _URL.fullmatch(args.dist_url):
        parser.error(f"--dist-url must be tcp://HOST:PORT or auto, got {args.dist_url!r}")


def should_launch(args: argparse.Namespace) -> bool:
    """Return whether this process must launch others instead of training itself."""
    return args.num_gpus * args.num_machines > 1 and not started_by_launcher()


def launch(args: argparse.Namespace, script: str, arguments: Sequence[str]) -> int:
    """Run ``script`` in ``--num-gpus`` processes, and print the first error to stderr.

    Args:
        args: Parsed options of :func:`add_options`.
        script: Path of the script.
        arguments: Command-line arguments of the script.

    Returns:
        0 if all processes succeeded; else the exit code of the process that failed first (1 if a
        signal killed it); 128 + signal number if a signal ended the launcher.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    several = args.num_machines > 1
    endpoint = args.dist_url.removeprefix("tcp://") if args.dist_url != "auto" else "localhost:0"
    # By default every process would use all cores in each of its thread pools.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // args.num_gpus)))
    config = LaunchConfig(
        min_nodes=args.num_machines,
        max_nodes=args.num_machines,
        nproc_per_node=args.num_gpus,
        run_id="unreid",
        rdzv_backend="static" if several else "c10d",
        rdzv_endpoint=endpoint,
        rdzv_configs={"rank": args.machine_rank, "timeout": 900} if several else {},
        max_restarts=args.max_restarts,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(),
    )
    try:
        elastic_launch(config, sys.executable)(script, *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        name = f"rank {rank} of {args.num_gpus * args.num_machines}"
        sys.stderr.write(f"error: {_failure_message(name, failure)}\n")
        return failure.exitcode if failure.exitcode > 0 else 1
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _failure_message(name: str, failure: Any) -> str:
    """Describe how process ``name`` ended, from ``ProcessFailure`` of torch elastic."""
    code, message = failure.exitcode, failure.message
    if code < 0 and not isinstance(message, dict):
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"{name} was killed by {failure.signal_name()}{hint}"
    if isinstance(message, dict):  # written by run_rank
        if code == 2 and not os.environ.get("UNREID_TRACEBACK"):
            return f"{name}: {message['message']}\n(UNREID_TRACEBACK=1 shows where)"
        return f"{name}: {message['message']}\n{message['extraInfo']['py_callstack'].rstrip()}"
    if code in (128 + signal.SIGTERM, 128 + signal.SIGINT):
        return f"{name} was ended by {signal.Signals(code - 128).name}"
    return f"{name} ended with exit code {code}, without an error message"


def run_rank(work: Callable[[], None]) -> int:
    """Run ``work`` in a launched process; the launcher prints its error.

    Returns:
        0. After an error this function ends the process, with exit code 2 for bad input, 1 for any
        other error, 130 after Ctrl-C and 143 after SIGTERM. After a signal ``work`` saves first.
    """
    code = _run_recorded(work)
    if code:
        # Skip the interpreter's shutdown: gloo may crash in it once connections are lost, and the
        # launcher would print that crash instead of the first error.
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError, OSError):
                stream.flush()
        os._exit(code)
    return code


def _run_recorded(work: Callable[[], None]) -> int:
    """Run ``work``, write its error to the file that the launcher reads; return the exit code."""
    from torch.distributed.elastic.multiprocessing.errors import record

    @record
    def recorded() -> None:
        try:
            work()
        except EXPECTED as error:
            stopped = received_signal()
            if stopped is not None:  # the error is a consequence of the signal
                raise stopped(error_text(error)) from error
            raise

    with raise_on_signals():
        try:
            recorded()
        except EXPECTED:
            return 2
        except Exception:
            return 1
        except KeyboardInterrupt as error:
            return print_interruption(error) if os.environ["RANK"] == "0" else exit_code(error)
    return 0


@contextlib.contextmanager
def errors_on_rank_0() -> Iterator[None]:
    """Let only rank 0 report an error that all processes raise, such as an invalid config.

    The other processes wait until the launcher ends them because rank 0 has failed.
    """
    try:
        yield
    except Exception:
        if started_by_launcher() and os.environ["RANK"] != "0":
            wait_for_launcher()
        raise


def wait_for_launcher() -> None:
    """Wait for the SIGTERM that follows the failure of another process, and raise Terminated.

    Returns if none arrives within :data:`DETECTION_SECONDS`, for example after a failure on another
    machine.
    """
    reraise_signal()
    time.sleep(DETECTION_SECONDS)
    reraise_signal()
