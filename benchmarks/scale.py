"""Seconds and peak memory of each part of a label refresh, over the number of images.

python benchmarks/scale.py [--sizes 10000 50000 200000] [--channels 128] [--parts NAME ...]

Each size runs in its own process. In it the parts run one after the other, each on the results of
the parts before, as in a training run. The images are files of 16 x 8 pixels, hard links to a few
hundred different ones. Listing, checks, loading and extraction therefore do all their work except
for large images. Features are synthetic (``benchmarks/inputs.py``), and the network looks them up
by image index. Memory is the peak above the resident memory at the start of the part.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import unreid  # noqa: F401, E402  (before fastreid: makes it importable)
from benchmarks.harness import MEBIBYTE, _peak_above, _reset_peak, _status  # noqa: E402
from benchmarks.inputs import clustered  # noqa: E402

CONFIG = ROOT / "projects" / "CALR" / "configs" / "baseline.yml"
#: Number of cameras in the synthetic folder, and of different files that the links point to.
CAMERAS, FILES = 12, 500
BATCH, BATCHES, WORKERS = 256, 200, 2
#: Largest number of images for the merge tree, whose rounds compare all pairs.
LARGEST_TREE = 50_000


def draw_folder(root: Path, num: int) -> None:
    """Create ``num`` images, ``cam_03/00012345.jpg``, as links to :data:`FILES` different ones."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    originals = root / ".originals"
    originals.mkdir(parents=True)
    for i in range(FILES):
        pixels = rng.integers(0, 256, (4, 2, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(originals / f"{i}.jpg")
    for camera in range(CAMERAS):
        (root / f"cam_{camera:02d}").mkdir()
    for i in range(num):
        os.link(originals / f"{i % FILES}.jpg", root / f"cam_{i % CAMERAS:02d}" / f"{i:08d}.jpg")


def settings(root: Path, output: Path) -> Any:
    """Return a config with small images and two workers; its network is not used."""
    from unreid.config import load_config

    options = {
        "MODEL.DEVICE": "cpu",
        "MODEL.BACKBONE.NAME": "build_mobilenetv2_backbone",
        "MODEL.BACKBONE.DEPTH": "0.1x",
        "MODEL.BACKBONE.FEAT_DIM": "1280",
        "MODEL.BACKBONE.PRETRAIN": "False",
        "INPUT.SIZE_TRAIN": "[16, 8]",
        "INPUT.SIZE_TEST": "[16, 8]",
        "DATASETS.NAMES": "('Folder',)",
        "DATASETS.TESTS": "()",
        "UNSUP.FOLDER.ROOT": str(root),
        "UNSUP.FOLDER.CAMERA": "subfolder",
        "DATALOADER.NUM_WORKERS": str(WORKERS),
        "DATALOADER.NUM_INSTANCE": "16",
        "SOLVER.IMS_PER_BATCH": str(BATCH),
        "TEST.IMS_PER_BATCH": "512",
        "UNSUP.ITERS_PER_EPOCH": str(BATCHES),
        "OUTPUT_DIR": str(output),
    }
    cfg, _ = load_config(str(CONFIG), [word for pair in options.items() for word in pair])
    return cfg


class Parts:
    """Parts of a label refresh; each stores the input of the next one."""

    def __init__(self, root: Path, output: Path, num: int, channels: int) -> None:
        self.cfg = settings(root, output)
        self.output = output
        self.drawn, self.people = clustered(num, channels)

    def listing(self) -> None:
        """Measure listing the folders, decoding every file, and numbering the cameras."""
        from unreid.data.unlabelled import load_training_images

        self.images, _ = load_training_images(("Folder",), cfg=self.cfg)

    def extraction(self) -> None:
        """Measure loading by workers, and a network that looks up features."""
        import torch

        from unreid.engine.extract import extract

        drawn = torch.from_numpy(self.drawn)

        class Lookup(torch.nn.Module):
            def forward(self, batch: dict[str, Any]) -> torch.Tensor:
                return drawn[batch["indices"]]

        self.bank = extract(self.cfg, Lookup(), self.images)

    def knn(self) -> None:
        """Measure exact kNN search over all pairs."""
        from unreid.labels.neighbours import Search

        self.neighbours = Search()(self.bank.features).knn(30)

    def jaccard(self) -> None:
        from unreid.graph.jaccard import jaccard_distance

        self.distance = jaccard_distance(
            self.bank.features, 30, 6, neighbours=self.neighbours, max_distance=0.6
        )

    def dbscan(self) -> None:
        from unreid.clustering.dbscan import dbscan

        self.labels = dbscan(self.distance, 0.6, 4)
        del self.distance

    def map_equation(self) -> None:
        from unreid.clustering.map_equation import map_equation
        from unreid.clustering.partition import compact

        indices, similarities = self.neighbours
        self.labels = compact(
            map_equation(indices[:, :15], similarities[:, :15], min_similarity=0.5, seed=0)
        )

    def tree(self) -> None:
        """Measure exact bottom-up merging; every round searches all pairs."""
        from unreid.clustering.bottom_up import bottom_up

        if len(self.bank) <= LARGEST_TREE:
            bottom_up(self.bank.features, num_merges=len(self.bank) * 9 // 10)

    def quality(self) -> None:
        from unreid.engine.run import LabelScorer

        LabelScorer(self.people, self.bank.camids)(self.labels)

    def publishing(self) -> None:
        """Measure the checks of labels, the memory from centroids, and writing the label file."""
        import torch

        from unreid.clustering.partition import centroids
        from unreid.engine.label_hook import PseudoLabelHook, cameras_per_cluster
        from unreid.memory.cluster_memory import ClusterMemory
        from unreid.structures import PseudoLabels

        self.pseudo = PseudoLabels(self.labels)
        memory = ClusterMemory(self.bank.features.shape[1])
        memory.reset(torch.from_numpy(centroids(self.bank.features, self.pseudo.labels)))
        cameras_per_cluster(self.pseudo.labels, self.bank.camids)
        hook = PseudoLabelHook(self.cfg, self.images, SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
        hook._save(self.pseudo, 0)
        self.hook = hook

    def sampler(self) -> None:
        """Measure all batches of an epoch."""
        import numpy as np

        from unreid.registry import SAMPLER_REGISTRY

        sampler = SAMPLER_REGISTRY.get("CameraAwareSampler").from_labels(
            self.pseudo,
            self.images.camids,
            batch_size=BATCH,
            num_instances=16,
            num_batches=BATCHES,
            rng=np.random.default_rng(0),
        )
        assert sum(len(batch) for batch in sampler) == BATCH * BATCHES

    def loader(self) -> None:
        """Measure the first 20 training batches with two workers."""
        loader = self.hook._train_loader(self.pseudo, 0)
        iterator = iter(loader)
        for _ in range(20):
            next(iterator)
        self.workers = sum(_private_bytes(pid) for pid in _children()) / MEBIBYTE

    def checkpoint(self) -> None:
        """Measure saving and loading a checkpoint with labels and the hash of the image list."""
        import hashlib

        import torch

        from unreid.engine.checkpoint import AtomicCheckpointer
        from unreid.modeling.build import build_model
        from unreid.reading.tensors import load_tensors

        model = build_model(self.cfg)
        name = hashlib.sha256("\n".join(self.images.relative_paths).encode()).hexdigest()
        AtomicCheckpointer(model, str(self.output)).save(
            "model_last", labels=torch.from_numpy(self.pseudo.labels.copy()), image_list=name
        )
        load_tensors(str(self.output / "model_last.pth"))

    def reading_back(self) -> None:
        """Measure reading the label file, as a report and a resumed run do."""
        from unreid.reading.arrays import read_labels

        assert len(read_labels(self.output / "labels" / "epoch_000.npz").paths) == len(self.images)


#: Part -> expected growth with the number of images, printed in the last column.
PARTS: dict[str, str] = {
    "listing": "N log N",
    "extraction": "N log N",
    "knn": "N^2",
    "jaccard": "N log N",
    "dbscan": "N log N",
    "map_equation": "N log N",
    "tree": "N^2",
    "quality": "N log N",
    "publishing": "N log N",
    "sampler": "N log N",
    "loader": "N log N",
    "checkpoint": "N log N",
    "reading_back": "N log N",
}


def _children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(word) for word in text.split()]


def _private_bytes(pid: int) -> int:
    """Return the bytes of a worker that are not shared with its parent process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def _processor_seconds() -> float:
    """Return the processor seconds of this process and its workers."""
    ticks = 0
    for pid in _children():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def measured(run: Callable[[], None]) -> dict[str, float]:
    """Return seconds, processor seconds (including workers), and peak MiB."""
    gc.collect()
    was_reset = _reset_peak()
    before = max(0, _status("VmRSS"))
    start, cpu = time.perf_counter(), _processor_seconds()
    run()
    return {
        "seconds": time.perf_counter() - start,
        "cpu": _processor_seconds() - cpu,
        "mebibytes": _peak_above(before, was_reset) / MEBIBYTE,
    }


def child(num: int, channels: int, only: list[str]) -> None:
    """Run one size; print a line of JSON after each part."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root, output = Path(folder) / "images", Path(folder) / "run"
        draw_folder(root, num)
        parts = Parts(root, output, num, channels)
        for name in PARTS:
            if only and name not in only:
                continue
            found = measured(getattr(parts, name))
            if name == "loader":
                found["workers"] = parts.workers
            if name == "tree" and num > LARGEST_TREE:
                continue
            if name == "publishing":
                found["clusters"] = parts.pseudo.num_clusters
            found["resident"] = _status("VmRSS") / MEBIBYTE
            print(json.dumps({"part": name, **found}), flush=True)


def collect(num: int, channels: int, only: list[str]) -> dict[str, dict[str, float]]:
    """Run the process of one size and return its measurements."""
    command = [sys.executable, __file__, "--child", str(num), "--channels", str(channels)]
    command += ["--parts", *only] if only else []
    found: dict[str, dict[str, float]] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"part"'):
                report = json.loads(line)
                found[report.pop("part")] = report
                print(f"{num:>8} {line.rstrip()}", file=sys.stderr, flush=True)
    if process.returncode:
        raise SystemExit(f"{num} images: exit status {process.returncode}")
    return found


def growth(sizes: list[int], values: list[float]) -> str:
    """Return the exponent of N between the two largest sizes."""
    if len(values) < 2 or min(values[-2:]) <= 0:
        return ""
    exponent = math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])
    return f"N^{exponent:.2f}"


def main() -> None:
    """Run all sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 50_000, 200_000])
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--parts", nargs="+", default=[], choices=list(PARTS))
    parser.add_argument("--child", type=int)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.channels, args.parts)
        return
    reports = {num: collect(num, args.channels, args.parts) for num in args.sizes}
    heads = [f"{num:,}: CPU s, peak MiB" for num in args.sizes]
    print("| part | " + " | ".join(heads) + " | seconds grow | memory grows | may grow |")
    print("|---" * (len(heads) + 4) + "|")
    for name, bound in PARTS.items():
        sizes = [num for num in args.sizes if name in reports[num]]
        if not sizes:
            continue
        rows = [reports[num][name] for num in sizes]
        cells = [f"{r['cpu']:.2f}, {r['mebibytes']:.0f}" for r in rows]
        cells += ["not run"] * (len(args.sizes) - len(cells))
        print(
            f"| {name} | "
            + " | ".join(cells)
            + f" | {growth(sizes, [r['cpu'] for r in rows])}"
            + f" | {growth(sizes, [r['mebibytes'] for r in rows])} | {bound} |"
        )


if __name__ == "__main__":
    main()
