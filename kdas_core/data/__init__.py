"""Polyp images and masks (chapter 1): which pairs train, which validate, which are tested on."""

from dataclasses import dataclass, replace
from pathlib import Path

from kdas_core import UserError
from kdas_core.data import layout
from kdas_core.data.augmentation import rng_for
from kdas_core.data.layout import PairIndex, index_pairs, list_images, natural


@dataclass(frozen=True)
class PolypData:
    """The pairs below one root, and images ``unlabelled``, of which a student may still learn what
    its teacher says. ``synthetic``: written by our own generator.
    """

    root: Path
    train: PairIndex
    validation: PairIndex
    tests: dict[str, PairIndex]
    synthetic: bool
    unlabelled: tuple[Path, ...] = ()

    def used(self, with_unlabelled: bool) -> "PolypData":
        """What a run uses: all, or all but the unlabelled; UserError: there are none to be used."""
        if with_unlabelled and not self.unlabelled:
            way_out = "name a folder of such images, or set labelled below 1"
            raise UserError(f"use_unlabelled is true, and every image has a mask; {way_out}.")
        return self if with_unlabelled else replace(self, unlabelled=())

    def check_masks(self) -> None:
        """A UserError where a mask cannot be used, of a test set too, before hours are spent."""
        for index in (self.train, self.validation, *self.tests.values()):
            layout.check_masks(index.folder, index)

    def label(self, name: str) -> str:
        """A test set's name and what a reader must know: ``ETIS-LaribPolypDB (20 of 196)``."""
        count, full = len(self.tests[name]), layout.FULL_COUNTS.get(name)
        if self.synthetic:
            return f"{name} (synthetic, {count})"
        return name if full in (None, count) else f"{name} ({count} of {full})"


def split_validation(index: PairIndex, fraction: float, seed: int) -> tuple[PairIndex, PairIndex]:
    """(train, validation), disjoint, in natural order; checkpoints are chosen on validation pairs.

    The names and the seed alone decide. The validation part has ``round(fraction · n)`` pairs, at
    least one (none for fraction 0), and leaves at least one for training. Frames of one video may
    fall on both sides, since the layout does not name it: a validation score is that much too high.
    A UserError for a fraction not in [0, 1), or fewer than two pairs to split.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"validation_fraction is {fraction}; it must be in [0, 1), such as 0.1.")
    order = sorted(range(len(index)), key=lambda i: natural(index[i].name))
    if fraction == 0:
        return index.take(order), index.take(())
    if len(index) < 2:
        fact = f"{index.folder} has {len(index)} pair(s), too few to hold back a validation part"
        raise UserError(f"{fact}; add images.")
    count = min(max(1, round(fraction * len(index))), len(index) - 1)
    chosen = {order[i] for i in rng_for(seed, 1).permutation(len(order))[:count]}
    train = index.take(i for i in order if i not in chosen)
    return train, index.take(i for i in order if i in chosen)


def load_data(
    data_root: str | Path,
    validation_fraction: float = 0.1,
    seed: int = 0,
    train_images: int | None = None,
    test_images: int | None = None,
    labelled: float = 1.0,
    unlabelled: str | Path = "",
) -> PolypData:
    """Index a whole benchmark: ``TrainDataset`` and whichever sets lie in ``TestDataset``, in the
    order of `layout.TEST_SETS`, others after them by name.

    Args:
        train_images: use only so many training pairs, drawn after the split; validation shrinks in
            proportion (at least one). With one seed, fewer are a subset of more.
        test_images: use only so many pairs of each test set, the same ones whatever the seed.
        labelled: use the masks of this share of the training pairs, at least of one; the others
            become ``unlabelled``. With one seed, fewer are a subset of more.
        unlabelled: a folder of further images, without masks.

    A UserError as `layout.index_pairs` and `split_validation`, or where a number is below 1.
    """
    for name, count in (("train_images", train_images), ("test_images", test_images)):
        if count is not None and count < 1:
            raise UserError(f"{name} is {count}; it must be at least 1, or left out to use all.")
    root = Path(data_root)
    every = index_pairs(root / "TrainDataset")
    train, validation = split_validation(every, validation_fraction, seed)
    if train_images is not None and train_images < len(train):
        share = max(1, round(len(validation) * train_images / len(train)))
        train, validation = _limit(train, train_images, seed), _limit(validation, share, seed)
    known = _limit(train, max(1, round(labelled * len(train))), seed)
    others = tuple(pair.image for pair in train if pair not in known)
    if unlabelled:
        others += tuple(list_images(unlabelled))
    below = [p for p in (root / "TestDataset").glob("*") if not layout.is_junk(p.name)]
    folders = {p.name: p for p in below if p.is_dir()}
    names = [name for name in layout.TEST_SETS if name in folders]
    names += sorted(folders.keys() - set(names), key=natural)
    tests = {n: _limit(index_pairs(folders[n]), test_images, 0) for n in names}
    return PolypData(root, known, validation, tests, layout.is_synthetic(root), others)


def _limit(index: PairIndex, count: int | None, seed: int) -> PairIndex:
    """At most ``count`` pairs: the first of a seeded shuffle, put back into natural order."""
    if count is None or count >= len(index):
        return index
    return index.take(sorted(rng_for(seed, 2).permutation(len(index))[:count]))
