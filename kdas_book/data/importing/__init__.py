"""Other people's layouts into ours, without touching the source: what ``kdas data import`` calls.

``layouts`` reads a source into ``frames``, whose pictures ``places`` finds; ``shapes`` turns
annotations into masks, ``pixels`` reads image files, ``output`` divides into training and test.
"""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path, PurePosixPath

from kdas_book.data.importing import output
from kdas_book.data.importing.frames import Frame, Listing, Options
from kdas_book.data.importing.layouts import READERS
from kdas_book.data.importing.output import NOTE, Imported
from kdas_book.data.importing.places import normal
from kdas_book.files import staging_dir
from kdas_core import UserError
from kdas_core.data.layout import not_utf8
from kdas_core.evaluation.files import Problems
from kdas_core.files import unwritten

__all__ = ["NOTE", "READERS", "Imported", "Options", "import_data"]


def import_data(source: str | Path, layout: str, out: str | Path, **options) -> Imported:
    """Bring a source into PraNet's layout: ``out/TrainDataset`` and ``out/TestDataset/<name>``.

    Images that need no change are copied byte for byte, others written as PNG; masks are PNG, 0 and
    255. A failed import leaves nothing, and nothing is overwritten: a set that is not yet there may
    join others in ``out``. Each set's folder gets a note, ``imported.json``.

    Args:
        source: a COCO file, or a folder for the other layouts. It is only read.
        layout: a key of ``READERS``. options: attributes of :class:`Options`.

    UserError: an option is wrong; ``out`` is taken or lies inside the source; or, in one message,
    everything that is wrong with the source.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    if layout not in READERS:
        raise UserError(f'There is no layout "{layout}"; choose {", ".join(READERS)}.')
    chosen = Options(**options)
    classes = chosen.values or chosen.colours
    if layout != "masks" and (chosen.masks or chosen.mask_suffix or classes):
        of_masks = "masks, mask_suffix, values and colours belong to the layout masks"
        raise UserError(f"{of_masks}, not to {layout}.")
    if layout == "labelme" and chosen.exif is None:
        chosen = replace(chosen, exif="turned")  # Labelme turns every picture before it shows it
    output.refuse_places(source, out, chosen)
    listing = READERS[layout](source, chosen)
    labels = _choose_labels(listing, chosen)
    report = Imported(out, layout, by_frame=not (chosen.group_by or chosen.groups))
    problems = Problems()
    faults = report.skipped if chosen.skip else problems
    faults += listing.faults
    used = [f for f in listing.frames if f.annotated or f.faults or chosen.negatives != "drop"]
    report.counts["dropped"] += len(listing.frames) - len(used)
    frames = _named(used, chosen.prefix, problems)
    try:
        with staging_dir(out) as draft:
            pool = output.Pool(draft / "pool", chosen, labels)
            kept = pool.write(frames, report, faults)
            if kept.empty and not problems:
                problems.append(f"Not one frame is left ({len(report.skipped)} faults skipped).")
            elif classes and len(kept) and not kept["share"].any():
                fact = f"No mask holds {', '.join(map(str, classes))}, so no frame has a polyp"
                problems.append(f"{fact}; look which values or colours the masks have.")
            problems.stop(f"imported from {source}")
            kept["group"] = output.groups_of(kept["frame"], chosen.group_by, chosen.groups)
            kept["test"] = output.divide(kept["group"], chosen.split, chosen.seed)
            report.sets = pool.move(kept, draft / "sets")
            output.write_notes(draft / "sets", source, chosen, report)
            output.publish(draft / "sets", out, list(report.sets))
    except OSError as error:
        raise unwritten(out, error, "choose another --out") from error
    return report


def _choose_labels(listing: Listing, chosen: Options) -> set[str]:
    """The categories that count as polyp."""
    counts = Counter(shape.label for frame in listing.frames for shape in frame.shapes)
    known = listing.labels | set(counts)
    order = sorted(known, key=lambda label: (-counts[label], label))
    shown = ", ".join(f"{label} ({counts[label]})" for label in order[:20])
    if not chosen.labels and len(known) > 1:
        way_out = f"say which are polyps, such as --label {order[0]}"
        raise UserError(f"The source has the categories {shown}; {way_out}.")
    if missing := ", ".join(label for label in chosen.labels if label not in known):
        raise UserError(f"The source has no category {missing}; it has {shown or 'none'}.")
    return set(chosen.labels) or known


def _named(frames: list[Frame], prefix: bool, problems: list[str]) -> dict[str, Frame]:
    """Frames by their later stem, faulty ones without an image; two of one stem are a problem."""
    named: dict[str, list[Frame]] = defaultdict(list)
    stems: dict[str, str] = {}
    for frame in (frame for frame in frames if frame.image):
        stem = _stem(frame, prefix)
        named[stems.setdefault(stem.casefold(), stem)].append(frame)
    problems += _claims(frames)
    problems += [f"{text}." for stem in named if (text := not_utf8(Path(stem)))]
    for stem, same in named.items():
        if len({(frame.image, frame.page) for frame in same}) > 1:
            more = f" and {len(same) - 2} more" if len(same) > 2 else ""
            fact = f"{same[0].where}, {same[1].where}{more} would be called {stem}"
            helps = len({_stem(frame, True).casefold() for frame in same}) == len(same)
            way_out = "say --prefix to put folders in front of names"
            way_out = way_out if helps and not prefix else "rename or remove all but one"
            problems.append(f"{fact}; {way_out}.")
    stem_of = {id(same[0]): stem for stem, same in named.items()}
    first = [frame for frame in frames if not frame.image or id(frame) in stem_of]
    return {stem_of.get(id(frame), frame.where): frame for frame in first}


def _stem(frame: Frame, prefix: bool) -> str:
    path = PurePosixPath(normal(frame.name.replace("\\", "/")))
    parts = [part for part in path.parts if part not in ("/", "..", ".")] or ["unnamed"]
    return "_".join(parts) if prefix else parts[-1]


def _claims(frames: list[Frame]) -> list[str]:
    """A sentence for each picture that is in use twice, by one name or through a link."""
    used: dict[tuple, list[Frame]] = defaultdict(list)
    for frame in frames:
        if isinstance(frame.image, Path):
            used[frame.image.resolve(), frame.page].append(frame)
    twice = [same for same in used.values() if len(same) > 1]
    fact = "{} and {} are of one image, {}; remove one of them."
    return [fact.format(same[0].where, same[1].where, same[0].image) for same in twice]
