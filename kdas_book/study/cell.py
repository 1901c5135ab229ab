"""A cell of a study: the steps of ``book/run_template.ipynb``, and the record that they leave."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import io
import json
import math
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdas_book.data.open_data import data_digest
from kdas_book.data.synthetic.scene import render
from kdas_book.data.synthetic.styles import STYLES
from kdas_book.records import machine
from kdas_book.session import Session
from kdas_book.study.spec import FILES, SCHEMA, read_record
from kdas_core import UserError
from kdas_core.data.layout import FULL_COUNTS, PairIndex
from kdas_core.data.masks import read_mask
from kdas_core.evaluation import ALL_METRICS, EvaluationResult, evaluate, read_prediction, repeats
from kdas_core.evaluation.metrics import dice
from kdas_core.files import atomic_write
from kdas_core.inference import predict_files, probability
from kdas_core.losses import ON_FEATURES
from kdas_core.models import build, count_parameters, freeze
from kdas_core.models.weights import weights_digest
from kdas_core.training.checkpoint import latest_checkpoint, revision

MAPS = "teacher-maps-seed{seed}"  # beside the networks of a study, until a seed's cells are done
MOST = 5e9  # bytes that such maps may take
_LIBRARIES = ("kdas_core", "torch", "timm", "numpy", "opencv-python-headless", "papermill")
Scores = dict[str, EvaluationResult]  # one network on all test sets, in the released convention


def network(run: Session, what: str, epoch: str = "best") -> nn.Module:
    """The frozen network of a cell's best or last epoch; a UserError: no checkpoint of the last."""
    role = "teacher" if what == "teacher" else "student"
    folder = None if epoch == "best" else run.folder(what)  # a released teacher has none
    if folder is None:
        return run.teacher() if role == "teacher" else _student(run, what)
    state = latest_checkpoint(folder)
    if state is None:
        fact = f"{folder} has no checkpoint of its last epoch"
        raise UserError(f"{fact}; remove the folder, and the cell trains anew.")
    prefix, ema = "module.", state.get("ema", {}).items()
    averaged = {key.removeprefix(prefix): value for key, value in ema if key.startswith(prefix)}
    recipe = run.recipe.for_teacher() if role == "teacher" else run.recipe
    net = build(role, backbone=getattr(recipe, role), width=recipe.decoder_width)
    net.load_state_dict(averaged or state["network"])
    return freeze(net).to(run.device)


def _student(run: Session, what: str) -> nn.Module:
    """The student, whose teacher remembers what it has said for other students of this seed."""
    r = run.recipe
    images = len(run.data.train) + (len(run.data.unlabelled) if r.use_unlabelled else 0)
    seen = images * r.epochs * (1 if r.random_scale else len(r.scales))
    needed = seen * 2 * 4 * (r.teacher_image_size or r.image_size) ** 2  # two maps of float32
    if run.device.type == "cpu" and what not in ("supervised", *ON_FEATURES) and needed < MOST:
        remember(run.teacher(), run.runs_dir / MAPS.format(seed=r.seed))
    return run.student(what)


def remember(net: nn.Module, folder: Path) -> None:
    """From now on the network answers images that it has seen before from a file in ``folder``: the
    students of one seed see the same batches, and looking up is faster than computing.
    """
    compute, weights = net.forward, weights_digest(net).encode()

    def look(images: Tensor, features: bool = False):
        if features or torch.is_grad_enabled():
            return compute(images, features)
        key = hashlib.blake2b(images.contiguous().numpy().tobytes(), key=weights[:64])
        file = folder / f"{key.hexdigest()[:32]}.npy"
        if file.is_file():
            p1, p2 = torch.from_numpy(np.load(file))
            return p1, p2
        maps = compute(images)
        folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.save(content, torch.stack(maps).numpy())
        mine = folder / f"{os.getpid()}.npy"  # another cell may be writing the same maps
        atomic_write(mine, content.getvalue())
        os.replace(mine, file)
        return maps

    net.forward = look


def score(run: Session, net: nn.Module, out: Path, keep_masks: bool = False) -> Scores:
    """Draw the masks of all test sets in the cell's folder; score them by the released protocol.

    ``per_image`` gets one more column, ``agreement``: Dice of the network's cut against the
    teacher's, whose masks stand in ``out/../teacher/masks`` (NaN without them). The masks are kept
    for the teacher alone, which all cells compare with.
    """
    scores = {}
    size = (run.recipe.for_teacher() if keep_masks else run.recipe).image_size
    for name, index in run.data.tests.items():
        masks, of_teacher = (where / "masks" / name for where in (out, out.parent / "teacher"))
        predict_files(net, [pair.image for pair in index], masks, size)
        scores[name] = result = evaluate(masks, index.folder / "masks", names=index.names)
        agreement = pd.Series(math.nan, index.names)
        if of_teacher.is_dir() and not keep_masks:
            for image in index.names:
                mine, theirs = (read_prediction(f / f"{image}.png") for f in (masks, of_teacher))
                agreement[image] = dice(mine, theirs >= 128)
        result.per_image["agreement"] = result.per_image["name"].map(agreement)
    if not keep_masks:
        shutil.rmtree(out / "masks")
        with contextlib.suppress(OSError):  # a folder made for these masks alone goes with them
            out.rmdir()
    return scores


def false_alarms(net: nn.Module, size: int, count: int = 100) -> float:
    """Drawn frames without a polyp, in all styles: in which share is a hundredth called polyp?"""
    styles = (list(STYLES) * count)[:count]
    frames = (render(seed, (288, 352), style, 0)[0] for seed, style in enumerate(styles))
    return float(np.mean([(probability(net, f, size) >= 0.5).mean() >= 0.01 for f in frames]))


def count_macs(net: nn.Module, size: int) -> int:
    """Multiply-accumulates of one image of size × size pixels."""
    image = torch.zeros(1, 3, size, size, device=next(net.parameters()).device)
    counter = FlopCounterMode(display=False)
    # The counter misses fused attention on a CPU, so it is taken apart.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        net(image)
    return counter.get_total_flops() // 2


def finish(
    run: Session, what: str, label: str, out: Path, best: Scores, last: Scores
) -> dict[str, Any]:
    """Write the cell's record, and return what is in ``metrics.json``; it comes last, and a cell
    that has it is finished. A UserError if the disk is full, or the folder cannot be written.
    """
    net = network(run, what)
    recipe = run.recipe.for_teacher() if what == "teacher" else replace(run.recipe, objective=what)
    training = {} if what == "teacher" and run.released_teacher else run.metrics(what)
    history = run.history(what) if training else pd.DataFrame()
    now = datetime.datetime.now(datetime.timezone.utc)
    data = {"name": run.data.root.name, "synthetic": run.data.synthetic}
    data |= {"digest": data_digest(run.data)}
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
        "macs": count_macs(net, recipe.image_size),
        "false_alarms": false_alarms(net, recipe.image_size),
        "convention": next(iter(best.values())).convention,
        "data": {**data, "train": len(run.data.train), "validation": len(run.data.validation)},
        "sets": {name: _of_set(name, best[name], last[name]) for name in best},
    }
    images = pd.concat([_images(i, best[name], last[name]) for name, i in run.data.tests.items()])
    texts = [history.to_csv(index=False), images.to_csv(index=False, float_format="%.6f")]
    for name, text in zip(FILES, [*texts, json.dumps(record, indent=1)]):
        atomic_write(out / name, text.encode(), durable=True)
    return read_record(out)


def _of_set(name: str, best: EvaluationResult, last: EvaluationResult) -> dict[str, Any]:
    """A set's part of the record."""
    agreement = best.per_image["agreement"].mean()
    return {
        "n": best.n,
        "of": FULL_COUNTS.get(name),
        "best": {metric: best.summary[metric] for metric in ALL_METRICS},
        "last": {metric: last.summary[metric] for metric in ALL_METRICS},
        "agreement": None if math.isnan(agreement) else float(agreement),
        "calibration_error": best.calibration_error,
    }


def _images(index: PairIndex, best: EvaluationResult, last: EvaluationResult) -> pd.DataFrame:
    """A row an image: the polyp's share, Dice and IoU of the best epoch, Dice of the last, …"""
    images = best.per_image.set_index("name")
    images["share"] = pd.Series({pair.name: read_mask(pair.mask).mean() for pair in index})
    images["dice_last"] = last.per_image.set_index("name")["dice"]
    images["repeat"] = images.index.isin(repeats(index.folder / "masks", index.names))
    columns = ["dataset", "name", "share", "repeat", "dice", "iou", "dice_last", "agreement"]
    return images.assign(dataset=index.folder.name).reset_index()[columns]


def _version(library: str) -> str:
    """Empty where it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(library)
    return ""
