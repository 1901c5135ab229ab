"""A whole benchmark: which pairs train, which validate, which are tested on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdas_core import UserError
from kdas_core.data.dataset import rng_for
from kdas_core.data.layout import (
    FULL_COUNTS,
    TEST_SETS,
    PairIndex,
    index_pairs,
    is_synthetic,
    natural,
)


@dataclass(frozen=True)
class PolypData:
    """Training, validation and test pairs below one root. ``synthetic``: written by our own
    generator.
    """

    root: Path
    train: PairIndex
    validation: PairIndex
    tests: dict[str, PairIndex]
    synthetic: bool

    def label(self, name: str) -> str:
        """A test set's name for a table, with what a reader must know: ``ETIS-LaribPolypDB (20 of
        196)``.
        """
        count, full = len(self.tests[name]), FULL_COUNTS.get(name)
        if self.synthetic:
            return f"{name} (synthetic, {count})"
        return name if full in (None, count) else f"{name} ({count} of {full})"


def split_validation(index: PairIndex, fraction: float, seed: int) -> tuple[PairIndex, PairIndex]:
    """Hold back a share of the training pairs, on which checkpoints are chosen: never on test
    images.

    The same names and seed give the same split, whatever the order of ``index``. The validation
    part has ``round(fraction · n)`` pairs, at least one (none for fraction 0), and leaves at least
    one for training.

    Pairs are drawn one by one. Frames of one video may therefore fall on both sides, since the
    PraNet layout does not say which video an image comes from; a validation score is to that extent
    too friendly.

    Returns:
        (train, validation), disjoint, each in natural order.

    Raises:
        UserError: fraction is not in [0, 1), or there are fewer than two pairs to split.
    """
    if not 0 <= fraction < 1:
        raise UserError(
            f"validation_fraction is {fraction}; it must be at least 0 and below 1, such as 0.1."
        )
    order = sorted(range(len(index)), key=lambda i: natural(index[i].name))
    if fraction == 0:
        return index.take(order), index.take(())
    if len(index) < 2:
        raise UserError(
            f"{index.folder} has {len(index)} pair(s), too few to hold back a validation part; add images."
        )
    count = min(max(1, round(fraction * len(index))), len(index) - 1)
    chosen = {order[i] for i in rng_for(seed, 1).permutation(len(order))[:count]}
    return index.take(i for i in order if i not in chosen), index.take(
        i for i in order if i in chosen
    )


def load_data(
    data_root: str | Path,
    validation_fraction: float = 0.1,
    seed: int = 0,
    train_images: int | None = None,
    test_images: int | None = None,
) -> PolypData:
    """Index a whole benchmark: ``TrainDataset`` and whichever sets lie in ``TestDataset``.

    Test sets come in the order of `TEST_SETS`, others after them by name.

    Args:
        validation_fraction, seed: as in `split_validation`.
        train_images: use only so many training pairs, drawn after the split; validation shrinks in
            proportion (at least one). A smaller number takes a subset of what a larger one takes
            with the same seed.
        test_images: use only so many pairs of each test set. Which ones does not depend on
            ``seed``: runs with different seeds are compared on the same images.

    Raises:
        UserError: TrainDataset is missing, a folder is faulty (see `index_pairs`), or a number is
            below 1.
    """
    root = Path(data_root)
    for hyperparameter, count in (("train_images", train_images), ("test_images", test_images)):
        if count is not None and count < 1:
            raise UserError(
                f"{hyperparameter} is {count}; it must be at least 1, or left out to use all images."
            )
    train, validation = split_validation(
        index_pairs(root / "TrainDataset"), validation_fraction, seed
    )
    if train_images is not None and train_images < len(train):
        share = max(1, round(len(validation) * train_images / len(train)))
        train, validation = _limit(train, train_images, seed), _limit(validation, share, seed)

    folders = {
        path.name: path
        for path in (root / "TestDataset").glob("*")
        if path.is_dir() and path.name[0] != "."
    }
    names = [name for name in TEST_SETS if name in folders] + sorted(
        folders.keys() - set(TEST_SETS), key=natural
    )
    tests = {name: _limit(index_pairs(folders[name]), test_images, 0) for name in names}
    return PolypData(root, train, validation, tests, is_synthetic(root))


def _limit(index: PairIndex, count: int | None, seed: int) -> PairIndex:
    """At most ``count`` pairs: the first of a seeded shuffle, put back into natural order."""
    if count is None or count >= len(index):
        return index
    return index.take(sorted(rng_for(seed, 2).permutation(len(index))[:count]))
