"""What a study costs beside its trainings, as ratios measured in one run.

python benchmarks/study.py --overhead      a study of four small cells: seconds beside training and scoring, one process or two
python benchmarks/study.py --report 1000   the report over so many made-up cells, and over a tenth of them: seconds, peak memory
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

from kdas_book.study.report import write_report
from kdas_book.study.results import collect
from kdas_book.study.run_study import run
from kdas_book.study.spec import SCHEMA, Study
from kdas_core.data.layout import FULL_COUNTS
from kdas_core.evaluation import ALL_METRICS

SMALL = Study(
    "small", {"supervised": {}, "kdas": {}}, (0, 1), settings={"epochs": 12, "teacher_epochs": 1}
)


def overhead() -> None:
    """Cells with one process, then with two, each of one thread; either finds the data and the teacher made."""
    os.environ["OMP_NUM_THREADS"] = "1"
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2):
            runs = Path(folder) / str(processes)
            run(
                replace(SMALL, objectives={"supervised": {}}, seeds=(9,)), runs, processes=1
            )  # data and teacher
            began = time.perf_counter()
            study = run(SMALL, runs, processes=processes)
            seconds[processes] = time.perf_counter() - began
            if processes == 1:
                beside(study, seconds[1])
    print(
        f"two processes of one thread finish {seconds[1] / seconds[2]:.2f} times the cells an hour of one ({seconds[1]:.0f} s, {seconds[2]:.0f} s)"
    )


def beside(study: Path, seconds: float) -> None:
    """Seconds of a cell that are neither training nor drawing and scoring masks, from papermill's record."""
    at_work = []
    for cell in SMALL.cells()[1:]:
        notebook = nbformat.read(study / cell.name / "notebook.ipynb", as_version=4)
        work = [
            c
            for c in notebook.cells
            if c.cell_type == "code" and ("network(" in c.source or "score(" in c.source)
        ]
        at_work.append(sum(c.metadata.papermill.duration for c in work))
    each = (seconds - sum(at_work)) / len(at_work)
    print(
        f"a cell: {np.mean(at_work):.1f} s of work and {each:.1f} s beside it ({100 * each / np.mean(at_work):.0f} % of the work)"
    )


def invent(folder: Path, seeds: int, labels: int = 10) -> None:
    """A study's folder with made-up numbers."""
    rng, names = np.random.default_rng(0), ["supervised", *(f"way{i}" for i in range(1, labels))]
    hyperparameters = {
        name: {"objective": "kdas", "alpha": round(0.1 + i / 100, 2)} if i else {}
        for i, name in enumerate(names)
    }
    study = Study("invented", hyperparameters, tuple(range(seeds)))
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(study.as_yaml())
    counts = {
        "CVC-300": 60,
        "CVC-ClinicDB": 62,
        "Kvasir": 100,
        "CVC-ColonDB": 380,
        "ETIS-LaribPolypDB": 20,
    }
    images = pd.DataFrame(
        [{"dataset": d, "name": str(i)} for d, n in counts.items() for i in range(n)]
    )
    images["share"] = rng.uniform(0.01, 0.4, len(images))
    for cell in study.cells()[1:]:
        values = images.assign(
            **{
                c: rng.uniform(0.4, 0.9, len(images))
                for c in ("dice", "iou", "dice_last", "agreement")
            }
        )
        (folder / cell.name).mkdir()
        values.to_csv(folder / cell.name / "per_image.csv", index=False, float_format="%.6f")
        history = pd.DataFrame(
            {
                "epoch": range(1, 13),
                "val_dice": rng.uniform(0.4, 0.7, 12),
                "val_loss": 1.0,
                "seconds": 1.0,
            }
        )
        history.to_csv(folder / cell.name / "history.csv", index=False)
        means = values.groupby("dataset")["dice"].mean()
        sets = {
            d: {
                "n": n,
                "of": FULL_COUNTS[d],
                "agreement": 0.5,
                **{e: dict.fromkeys(ALL_METRICS, means[d]) for e in ("best", "last")},
            }
            for d, n in counts.items()
        }
        record = {
            "schema": SCHEMA,
            "label": cell.label,
            "objective": cell.objective,
            "seed": cell.seed,
            "sets": sets,
        }
        record |= {
            "recipe": {"teacher": "t", "student": "s", "image_size": 128},
            "convention": "released",
            "teacher": "0" * 64,
        }
        record |= {
            "revision": "",
            "versions": {},
            "hardware": "made up",
            "minutes": 1.0,
            "epochs": 12,
            "best_epoch": 9,
        }
        record |= {"validation_dice": 0.5, "parameters": 1, "macs": 1}
        record |= {"data": {"name": "d", "synthetic": False, "train": 1, "validation": 1}}
        (folder / cell.name / "metrics.json").write_text(json.dumps(record))


def measured(folder: Path) -> tuple[float, float]:
    """Seconds of the whole report, and this process's peak memory in MB."""
    began = time.perf_counter()
    write_report(collect(folder), folder / "report")
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(cells: int) -> None:
    """Each size in a process of its own, since peak memory never falls."""
    with tempfile.TemporaryDirectory() as folder:
        for count in (cells // 10, cells):
            invent(Path(folder) / str(count), count // 10)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, peak = pool.apply(measured, [Path(folder) / str(count)])
            print(f"{count:5} cells: report in {seconds:.1f} s, peak memory {peak:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--overhead", action="store_true", help="a study of four small cells")
    parser.add_argument(
        "--report",
        type=int,
        default=0,
        metavar="CELLS",
        help="the report over so many made-up cells",
    )
    options = parser.parse_args()
    if options.overhead:
        overhead()
    if options.report:
        report(options.report)


if __name__ == "__main__":
    main()
