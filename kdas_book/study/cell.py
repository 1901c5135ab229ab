"""What happens in a cell of a study: the steps of ``book/run_template.ipynb``, and the record that
they leave.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from kdas_book.build.run_notebook import machine
from kdas_book.session import Session
from kdas_book.study.spec import FILES, SCHEMA, read_record
from kdas_core import UserError
from kdas_core.data.images import read_mask
from kdas_core.data.layout import FULL_COUNTS
from kdas_core.evaluation import ALL_METRICS, EvaluationResult, evaluate, read_prediction
from kdas_core.evaluation.metrics import dice
from kdas_core.files import atomic_write
from kdas_core.inference import predict_files
from kdas_core.models import build, count_macs, count_parameters, freeze
from kdas_core.models.weights import weights_digest
from kdas_core.training.checkpoint import latest_checkpoint, revision

_LIBRARIES = ("kdas_core", "torch", "timm", "numpy", "opencv-python-headless", "papermill")


@dataclass(frozen=True)
class Scores:
    """One network on all test sets.

    Attributes:
        results: ``{data set: EvaluationResult}``, in the released convention.
        agreement: ``{data set: Dice of the network's cut against the teacher's, one value an
            image}``; empty for the teacher.
    """

    results: dict[str, EvaluationResult]
    agreement: dict[str, pd.Series]


def network(run: Session, what: str, epoch: str = "best") -> nn.Module:
    """The frozen network of a cell: that of the best epoch on validation, or that of the last.

    Raises:
        UserError: the last epoch's checkpoint is not there.
    """
    role = "teacher" if what == "teacher" else "student"
    folder = None if epoch == "best" else run.folder(what)  # a released teacher has none
    if folder is None:
        return run.teacher() if role == "teacher" else run.student(what)
    state = latest_checkpoint(folder)
    if state is None:
        raise UserError(
            f"{folder} has no checkpoint of its last epoch; remove the folder, and the cell trains "
            "anew."
        )
    prefix, ema = "module.", state["ema"].items()
    averaged = {key.removeprefix(prefix): value for key, value in ema if key.startswith(prefix)}
    net = build(role, backbone=getattr(run.recipe, role))
    net.load_state_dict(averaged or state["network"])
    return freeze(net).to(run.device)


def score(run: Session, net: nn.Module, out: Path, keep_masks: bool = False) -> Scores:
    """Draw the masks of all test sets, and score them by the released protocol.

    Args:
        out: the cell's folder; the teacher's masks are looked for in ``out/../teacher/masks``.
        keep_masks: leave the masks in ``out/masks`` (the teacher's, which all cells compare with).
    """
    masks = out / "masks"
    results, agreement = {}, {}
    for name, index in run.data.tests.items():
        predict_files(net, [pair.image for pair in index], masks / name, run.recipe.image_size)
        results[name] = evaluate(masks / name, index.folder / "masks", names=index.names)
        of_teacher = out.parent / "teacher" / "masks" / name
        if of_teacher.is_dir() and not keep_masks:
            agreement[name] = _agreement(masks / name, of_teacher, index.names)
    if not keep_masks:
        shutil.rmtree(masks)
        with contextlib.suppress(OSError):  # a folder made for these masks alone goes with them
            out.rmdir()
    return Scores(results, agreement)


def _agreement(masks: Path, of_teacher: Path, names: list[str]) -> pd.Series:
    values = {}
    for name in names:
        mine, theirs = (read_prediction(f / f"{name}.png") for f in (masks, of_teacher))
        values[name] = dice(mine, theirs >= 128)
    return pd.Series(values)


def table(scores: Scores) -> pd.DataFrame:
    """The 13 metrics and Dice and IoU at 0.5, a row for each set."""
    rows = {name: result.summary | {"n": result.n} for name, result in scores.results.items()}
    return pd.DataFrame(rows).T[["n", *ALL_METRICS]].astype({"n": int})


def finish(
    run: Session, what: str, label: str, out: Path, best: Scores, last: Scores
) -> dict[str, Any]:
    """Write the cell's record; ``metrics.json`` comes last, and a cell that has it is finished.

    Returns:
        What is in ``metrics.json``; ``SCHEMA`` counts its versions.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    net = network(run, what)
    recipe = run.recipe.for_teacher() if what == "teacher" else replace(run.recipe, objective=what)
    training = {} if what == "teacher" and run.released_teacher else run.metrics(what)
    history = run.history(what) if training else pd.DataFrame()
    now = datetime.datetime.now(datetime.timezone.utc)
    record = {
        "schema": SCHEMA,
        "label": label,
        "objective": what,
        "seed": recipe.seed,
        "recipe": asdict(recipe),
        "revision": training.get("revision") or revision(),
        "versions": {name: _version(name) for name in _LIBRARIES},
        "hardware": machine(),
        "finished": now.isoformat(timespec="seconds"),
        "minutes": round(training.get("seconds", 0) / 60, 2),
        "epochs": training.get("epochs"),
        "best_epoch": training.get("best_epoch"),
        "validation_dice": training.get("val_dice"),
        "teacher": weights_digest(run.teacher()),
        "parameters": count_parameters(net),
        "macs": count_macs(net, run.recipe.image_size),
        "convention": next(iter(best.results.values())).convention,
        "data": {
            "name": run.data.root.name,
            "synthetic": run.data.synthetic,
            "train": len(run.data.train),
            "validation": len(run.data.validation),
        },
        "sets": {name: _of_set(name, best, last) for name in best.results},
    }
    images = pd.concat([_images_of(run, name, best, last) for name in best.results])
    texts = (
        history.to_csv(index=False),
        images.to_csv(index=False, float_format="%.6f"),
        json.dumps(record, indent=1),
    )
    for name, text in zip(FILES, texts):
        atomic_write(out / name, text.encode(), durable=True)
    return read_record(out)


def _of_set(name: str, best: Scores, last: Scores) -> dict[str, Any]:
    """A set's part of the record."""
    agreement = best.agreement.get(name)
    means = {"best": best.results[name].summary, "last": last.results[name].summary}
    return {
        "n": best.results[name].n,
        "of": FULL_COUNTS.get(name),
        **{
            epoch: {metric: mean[metric] for metric in ALL_METRICS} for epoch, mean in means.items()
        },
        "agreement": None if agreement is None else float(agreement.mean()),
    }


def _images_of(run: Session, name: str, best: Scores, last: Scores) -> pd.DataFrame:
    """One row an image of a set: the polyp's share of it, Dice and IoU of the best epoch, Dice of
    the last, agreement.
    """
    of_best, of_last = (s.results[name].per_image.set_index("name") for s in (best, last))
    columns = {
        "dataset": name,
        "share": pd.Series({p.name: read_mask(p.mask).mean() for p in run.data.tests[name]}),
        "dice": of_best["dice"],
        "iou": of_best["iou"],
        "dice_last": of_last["dice"],
        "agreement": best.agreement.get(name),
    }
    table = pd.DataFrame(columns, index=of_best.index).reset_index()
    return table[["dataset", "name", *list(columns)[1:]]]


def _version(name: str) -> str:
    """Of an installed package; empty where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
