"""Other people's layouts into ours, without touching the source: what ``kdas data import`` calls.

One short file a layout reads annotations into ``frames``; ``shapes`` turns them into masks,
``pixels`` reads and writes image files, ``grouping`` divides into training and test.
:func:`import_data` is the whole way.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm.auto import tqdm

from kdas_book.data.importing import boxes, coco, grouping, labelme, maskfiles
from kdas_book.data.importing.frames import Frame, Listing, normal
from kdas_book.data.importing.options import NOTE, Imported, Options
from kdas_book.data.importing.output import (
    Kept,
    arrange,
    publish,
    refuse_places,
    write,
    write_notes,
)
from kdas_book.data.importing.pixels import bits_in_use, load_mask, load_picture, png
from kdas_book.data.importing.shapes import draw
from kdas_core import UserError
from kdas_core.files import staging_dir

__all__ = ["NOTE", "READERS", "Imported", "Options", "import_data"]
SHOWN = 50  # problems in one message

READERS: dict[str, Callable[[Path, Options], Listing]] = {
    "coco": lambda source, options: coco.read(source, options.images),
    "labelme": lambda source, options: labelme.read(source, options.images),
    "voc": lambda source, options: boxes.read_voc(source, options.images),
    "yolo": lambda source, options: boxes.read_yolo(source, options.images),
    "masks": lambda source, options: maskfiles.read(
        source, options.images, options.masks, options.mask_suffix
    ),
}


def import_data(source: str | Path, layout: str, out: str | Path, **options) -> Imported:
    """Bring a source into PraNet's layout: ``out/TrainDataset`` and ``out/TestDataset/<name>``.

    Images that need no change are copied byte for byte, others written as PNG; masks are PNG, 0 and
    255. All is written beside ``out`` and renamed at the end, so a failed import leaves nothing.
    Nothing is overwritten: a set that is not yet there may join others in ``out``. Each set's
    folder gets a note, ``imported.json``.

    Args:
        source: a COCO file, or a folder for the other layouts. It is only read.
        layout: a key of ``READERS``.
        options: attributes of :class:`Options`.

    Returns:
        Counts, as :class:`Imported`.

    Raises:
        UserError: an option is wrong; ``out`` is taken or lies inside the source; or, in one
            message, everything that is wrong with the source.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    if layout not in READERS:
        raise UserError(f'There is no layout "{layout}"; choose {", ".join(READERS)}.')
    settings = Options(**options)
    if layout != "masks" and (
        settings.masks or settings.mask_suffix or settings.values or settings.colours
    ):
        raise UserError(
            f"masks, mask_suffix, values and colours belong to the layout masks, not to {layout}."
        )
    if layout == "labelme" and settings.exif is None:
        settings = replace(
            settings, exif="turned"
        )  # Labelme turns every picture before it shows it
    refuse_places(source, out, settings)
    listing = READERS[layout](source, settings)
    report = Imported(out, layout, by_frame=not (settings.group_by or settings.groups))
    problems: list[str] = []
    (report.skipped if settings.skip else problems).extend(listing.faults)
    labels = _choose_labels(listing, settings)
    frames = _named(listing.frames, settings, problems)
    with staging_dir(out) as draft:
        kept = _write_pairs(frames, labels, settings, draft, report, problems)
        _raise_all(source, problems)
        groups, alone = grouping.groups_of(
            [pair.name for pair in kept], settings.group_by, settings.groups
        )
        _raise_all(source, alone)
        testing = grouping.divide(groups, settings.split, settings.seed)
        arrange(draft, kept, groups, testing, settings, report)
        write_notes(draft, source, settings, report)
        publish(draft, out, list(report.sets))
    return report


# --- before anything is written ---------------------------------------------------------------------------------------


def _choose_labels(listing: Listing, settings: Options) -> set[str]:
    """The categories that count as polyp."""
    counts = Counter(shape.label for frame in listing.frames for shape in frame.shapes or ())
    known = listing.labels | set(counts)
    shown = ", ".join(
        f"{label} ({counts[label]})" for label in sorted(known, key=lambda k: (-counts[k], k))[:20]
    )
    if not settings.labels and len(known) > 1:
        raise UserError(
            f"The source has the categories {shown}; say which are polyps, such as --label {shown.split(' (')[0]}."
        )
    if missing := [label for label in settings.labels if label not in known]:
        raise UserError(
            f"The source has no category {', '.join(missing)}; it has {shown or 'none'}."
        )
    return set(settings.labels) or known


def _named(frames: list[Frame], settings: Options, problems: list[str]) -> dict[str, Frame]:
    """Frames by the stem that they will have; two of one stem (case does not count: some file
    systems) are a problem.
    """
    named: dict[str, list[Frame]] = {}
    stems: dict[str, str] = {}
    for frame in frames:
        path = PurePosixPath(normal(frame.name.replace("\\", "/")))
        parts = [part for part in path.parts if part not in ("/", "..", ".")] or ["unnamed"]
        stem = "_".join(parts) if settings.prefix else parts[-1]
        stem = stems.setdefault(stem.casefold(), stem)
        named.setdefault(stem, []).append(frame)
    way = (
        "rename or remove all but one"
        if settings.prefix
        else "say --prefix to put folders in front of names"
    )
    for stem, same in named.items():
        if len(same) > 1:
            more = f" and {len(same) - 2} more" if len(same) > 2 else ""
            problems.append(
                f"{same[0].where}, {same[1].where}{more} would be called {stem}; {way}."
            )
    return {stem: same[0] for stem, same in named.items()}


def _raise_all(source: Path, problems: list[str]) -> None:
    if len(problems) == 1:
        raise UserError(f"{problems[0]} Nothing was imported.")
    if problems:
        rest = len(problems) - SHOWN
        lines = [f"- {problem}" for problem in problems[:SHOWN]] + (
            [f"- and {rest} more"] if rest > 0 else []
        )
        head = f"Nothing was imported from {source}, since {len(problems)} things are wrong:"
        raise UserError("\n".join([head, *lines]))


# --- writing ----------------------------------------------------------------------------------------------------------


def _write_pairs(
    frames: dict[str, Frame],
    labels: set[str],
    settings: Options,
    draft: Path,
    report: Imported,
    problems: list[str],
) -> list[Kept]:
    """All pairs into ``draft/pool``; faults go to ``problems``, or where they may be skipped to the
    report.
    """
    kept: list[Kept] = []
    files = {frame.image for frame in frames.values() if isinstance(frame.image, Path)}
    bits = max((bits_in_use(path) for path in sorted(files)), default=8)
    bar = tqdm(frames.items(), desc="importing", leave=False, disable="TQDM_DISABLE" in os.environ)
    for stem, frame in bar:
        counts: Counter = Counter()
        try:
            pair = _one_pair(stem, frame, labels, settings, bits, draft / "pool", counts)
        except UserError as error:
            frame.faults.append(str(error))
        if frame.faults:
            (report.skipped if settings.skip else problems).extend(frame.faults)
            continue
        report.counts.update(counts)
        if pair:
            kept.append(pair)
    if not kept and not problems:
        problems.append(f"Not one frame is left ({len(report.skipped)} faults skipped).")
    elif kept and not any(pair.share for pair in kept) and (settings.values or settings.colours):
        wanted = ", ".join(map(str, settings.values or settings.colours))
        problems.append(
            f"No mask holds {wanted}, so no frame has a polyp; look which values or colours the masks have."
        )
    return kept


def _one_pair(
    stem: str,
    frame: Frame,
    labels: set[str],
    settings: Options,
    bits: int,
    pool: Path,
    counts: Counter,
) -> Kept | None:
    """Write one pair; None if the frame has faults or is to be left out."""
    if not frame.is_annotated and settings.negatives is None:
        raise UserError(
            f"{frame.where} has no annotation; say --negatives keep if such images show no polyp, or --negatives drop."
        )
    if not frame.image:
        return None  # its faults say why
    mask, size, exif = None, frame.size, settings.exif
    if frame.mask is not None:
        mask = load_mask(frame.mask, frame.page, settings.values, settings.rgb)
        size = (mask.shape[1], mask.shape[0])
    elif not frame.shapes:  # nothing was drawn, so nothing can lie in the wrong place
        size, exif = None, exif or "turned"
    picture = load_picture(frame.image, frame.page, size, exif, bits)
    if mask is None:
        mask = _drawn(frame, labels, settings.box, picture.size, counts)
    if frame.faults:
        return None
    if settings.negatives == "drop" and not mask.any():
        counts["dropped"] += 1
        return None
    counts["copied" if picture.copied else "rewritten"] += 1
    write(pool / "images" / f"{stem}{picture.suffix}", picture.code)
    write(pool / "masks" / f"{stem}.png", png(mask.astype(np.uint8) * 255))
    return Kept(f"{stem}{picture.suffix}", frame.name, float(mask.mean()))


def _drawn(
    frame: Frame, labels: set[str], box: str | None, size: tuple[int, int], counts: Counter
) -> np.ndarray:
    """The union of a frame's shapes; what is wrong with any of them is added to the frame's faults."""
    width, height = size
    mask = np.zeros((height, width), bool)
    shapes = frame.shapes or []
    for i, shape in enumerate(shapes, 1):
        if shape.label not in labels:
            counts["other_label"] += 1
            continue
        try:
            part, clipped = draw(shape, width, height, box)
        except ValueError as error:
            frame.faults.append(
                f"{frame.where}, shape {i} of {len(shapes)} ({shape.label}) {error}."
            )
            continue
        mask |= part
        counts["weak" if shape.kind == "box" else "outlines"] += 1
        counts["clipped"] += clipped
    return mask
