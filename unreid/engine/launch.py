"""From ``--num-gpus`` to processes: what torchrun does, with fast-reid's options.

Each process runs the same command again, with its number in the environment; under torchrun there
is nothing to do.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

_URL = re.compile(r"tcp://([^:/\[\]]+|\[[0-9a-fA-F:]+\]):(\d+)")


def started_by_launcher() -> bool:
    """Whether torchrun (or our own launcher) started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def restarted() -> bool:
    """Whether torchrun has started this process anew after a failure (``--max-restarts``)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """fast-reid's four options."""
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N",
                        help="processes on this machine, one GPU each, or on CPUs (default 1)")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N",
                        help="machines; the command is given on each of them (default 1)")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="R",
                        help="this machine's number, from 0")
    parser.add_argument("--dist-url", default="auto", metavar="tcp://HOST:PORT",
                        help="where machine 0 is met; one machine finds a free port itself")


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what cannot be, as misuse of the command line."""
    for name in ("num_gpus", "num_machines"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be >= 1, got {getattr(args, name)}")
    if not 0 <= args.machine_rank < args.num_machines:
        parser.error(f"--machine-rank must be in 0..{args.num_machines - 1} with --num-machines"
                     f" {args.num_machines}, got {args.machine_rank}")
    if args.dist_url == "auto":
        if args.num_machines > 1:
            parser.error("--dist-url tcp://HOST:PORT of machine 0 is needed with --num-machines"
                         f" {args.num_machines}")
    elif not _URL.fullmatch(args.dist_url):
        parser.error(f"--dist-url must be tcp://HOST:PORT or auto, got {args.dist_url!r}")


def wanted(args: argparse.Namespace) -> bool:
    """Whether this process is to start others, and not to train itself."""
    return args.num_gpus * args.num_machines > 1 and not started_by_launcher()


def launch(args: argparse.Namespace, script: str, arguments: Sequence[str]) -> int:
    """Run ``script`` in ``--num-gpus`` processes, and end all of them when one fails.

    Args:
        args: With the four options.
        script: Path of the tool.
        arguments: Its command line.

    Returns:
        0 when all went well; the exit code of the process that failed first (1 when it was
        killed); 128 + the signal that ended all.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    several = args.num_machines > 1
    endpoint = args.dist_url.removeprefix("tcp://") if args.dist_url != "auto" else "localhost:0"
    # Else every process takes all cores, for each of its thread pools.
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
        max_restarts=0,
        monitor_interval=0.2,
        logs_specs=DefaultLogsSpecs(),
    )
    try:
        elastic_launch(config, sys.executable)(script, *arguments)
    except ChildFailedError as error:
        first = min(error.failures.values(), key=lambda failure: failure.timestamp)
        return first.exitcode if first.exitcode > 0 else 1
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0
