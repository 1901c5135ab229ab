"""Which pictures are the same picture, byte for byte or saved anew, and which show the same scene.

The distance of two pictures is the number of bits, of 256, in which their perceptual hashes differ.
Measured on the 2072 public images: one picture as JPEG of quality 50, noisier or of another size is
at most 6 from itself, brighter by a fifth 18, less a rim of 1 % of its width 50 (median 28). Next
frames of one CVC-ClinicDB sequence are 64 apart (median; 1 in 100 up to 8), frames of two sequences
from 28, strangers from 42, but for one polyp a moment apart at 18. So up to `NEAR` two files hold
one picture, or frames that a person hardly tells apart, and up to `SCENE` they show one scene.
Mirrored, turned or cropped copies are not recognised. (With 64 bits, six pairs of strangers are as
close as 4.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from kdas_core.data.layout import Pair, first_few

TRAIN = "TrainDataset"
BITS = 256
NEAR = 12
SCENE = 32
NONE = BITS + 1  # the distance where there is no other picture
_SIDE = 64  # cosine frequencies are taken at 64 × 64
_FLAT = 2.0  # grey levels of deviation below which a picture has nothing to compare
_ROWS = 256  # pictures compared with all others at a time


@dataclass(frozen=True)
class Picture:
    """A pair of files, a digest of the image file's bytes, and the image's `fingerprint`."""

    pair: Pair
    digest: bytes
    bits: np.ndarray


@dataclass(frozen=True)
class NearDuplicate:
    """Two pictures that are alike: their sets, their pairs of files, and their distance in bits."""

    sets: tuple[str, str]
    pairs: tuple[Pair, Pair]
    distance: int

    def __str__(self) -> str:
        """``5.jpg ~ 2.jpg``, with the sets' names where they differ."""
        (a, b), (one, other) = self.sets, (pair.image.name for pair in self.pairs)
        return f"{one} ~ {other}" if a == b else f"{a}/{one} ~ {b}/{other}"


def fingerprint(grey: Image.Image) -> np.ndarray:
    """The perceptual hash of a grey picture (ImageHash: the signs, against their median, of its
    16 × 16 lowest cosine frequencies) as int8 -1 and +1, shape (256,); all 0 for a flat picture.
    """
    small = grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if np.asarray(small).std() < _FLAT:
        return np.zeros(BITS, np.int8)
    bits = imagehash.phash(small, hash_size=16, highfreq_factor=4).hash
    return np.where(bits.ravel(), 1, -1).astype(np.int8)


def nearest(
    prints: Sequence[np.ndarray], folders: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For every picture and every folder, the most similar picture of that folder.

    In a picture's own folder only earlier pictures count: of two equal ones the second is the
    repeat. All are compared with all: 20,000 pictures take 7 s on one core.

    Args:
        prints: n fingerprints, the folders' one after another.
        folders: how many pictures each folder has.

    Returns:
        distance int (n, len(folders)), `NONE` where the folder has no other picture; position int,
        the same shape, of the most similar picture (the first of several) among all n.
    """
    n = len(prints)
    ends = np.cumsum(folders)
    codes = np.array(prints, dtype=np.float32).reshape(n, BITS)  # whole numbers, so exact
    own = np.repeat(np.arange(len(folders)), folders)
    distance = np.full((n, len(folders)), NONE)
    position = np.zeros_like(distance)
    for top in range(0, n, _ROWS):
        rows = np.arange(top, min(top + _ROWS, n))
        # Equal bits count +1 and others -1; a flat picture is 128 from all.
        apart = (BITS - codes[rows] @ codes.T) / 2
        apart[(own[rows, None] == own) & (rows[:, None] <= np.arange(n))] = NONE
        for f, (start, stop) in enumerate(zip(ends - folders, ends)):
            if start < stop:
                position[rows, f] = start + apart[:, start:stop].argmin(1)
                distance[rows, f] = apart[:, start:stop].min(1)
    return distance, position


class Comparison:
    """All pictures of some sets against each other.

    Args:
        sets: name of a set → its pictures; the others must share none with ``TrainDataset``.
    """

    def __init__(self, sets: Mapping[str, Sequence[Picture]]):
        self.sizes = {name: len(pictures) for name, pictures in sets.items()}
        every = pd.DataFrame(
            [(i, name, p.pair, p.digest) for i, name in enumerate(sets) for p in sets[name]],
            columns=["i", "set", "pair", "digest"],
        )
        bits = [picture.bits for pictures in sets.values() for picture in pictures]
        distance, position = nearest(bits, np.array(list(self.sizes.values()), dtype=int))
        parts = []
        for j, other in enumerate(sets):
            first = every[every["i"] == j].drop_duplicates("digest").set_index("digest")["pair"]
            same = every["digest"].map(first)
            part = every.assign(j=j, other=other, same=same.where(same != every["pair"]))
            twin = every["pair"].to_numpy()[position[:, j]]
            parts.append(part.assign(twin=twin, distance=distance[:, j]))
        # A row for each picture and each set, closest first: the set's first one of the same bytes
        # (in its own: an earlier one), or NaN, and its most similar one.
        self._rows = pd.concat(parts).sort_values(["distance", "i", "j"])

    def _between(self, a: str, b: str) -> pd.DataFrame:
        return self._rows[(self._rows["set"] == a) & (self._rows["other"] == b)]

    def equal(self, a: str, b: str) -> list[str]:
        """The files of a set that are, byte for byte, in another set as well; of a set with itself
        ``"5.jpg = 2.jpg"`` for each that repeats an earlier one.
        """
        found = self._between(a, b).dropna(subset="same").sort_index()
        names = [pair.image.name for pair in found["pair"]]
        earlier = [pair.image.name for pair in found["same"]]
        return [f"{one} = {other}" for one, other in zip(names, earlier)] if a == b else names

    def alike(self, a: str, b: str, within: int = NEAR) -> list[NearDuplicate]:
        """Each picture of a set that is not `equal` to one of the other, with the most similar one
        there (in its own set: among the earlier ones), closest first.
        """
        return _duplicates(self._between(a, b), within)

    def shared(self) -> pd.DataFrame:
        """How many pictures of the row's set are in the column's, byte for byte or nearly."""
        found = self._rows["same"].notna() | (self._rows["distance"] <= NEAR)
        counts = found.groupby([self._rows["set"], self._rows["other"]]).sum().unstack()
        return counts.reindex(index=list(self.sizes), columns=list(self.sizes), fill_value=0)

    def near(self, within: int = NEAR) -> tuple[NearDuplicate, ...]:
        """What is `alike` in each set and itself or an earlier set, closest first."""
        return tuple(_duplicates(self._rows[self._rows["j"] <= self._rows["i"]], within))

    def closest(self) -> tuple[NearDuplicate, ...]:
        """The four closest pairs of `near`, and the two closest between sets, however far apart;
        no picture is shown twice.
        """
        digest = dict(zip(self._rows["pair"], self._rows["digest"]))
        every = self.near(BITS)
        chosen: list[NearDuplicate] = []
        used: set[bytes] = set()
        for pool, count in ((every, 4), ([t for t in every if t.sets[0] != t.sets[1]], 2)):
            stop = len(chosen) + count
            for twins in pool:
                both = {digest[pair] for pair in twins.pairs}
                if len(chosen) < stop and not used & both:
                    used |= both
                    chosen.append(twins)
        return tuple(chosen)

    def leaks(self, name: str) -> list[str]:
        """A sentence if pictures of a test set are training pictures byte for byte."""
        found = self.equal(name, TRAIN) if name != TRAIN else []
        lines = self._listed(name, found, f"in {TRAIN} as well, byte for byte")
        return [f"{x[:-1]}; a score on them is no test, so remove them on one side." for x in lines]

    def findings(self) -> list[str]:
        """What sets repeat and share, a sentence each."""
        lines = []
        for i, a in enumerate(self.sizes):
            lines += self._listed(a, self.equal(a, a), "equal to an earlier one, byte for byte")
            lines += self._listed(a, self.alike(a, a), "nearly equal to an earlier one")
            for b in list(self.sizes)[:i]:
                lines += self._across(a, b)
        return lines

    def _across(self, a: str, b: str) -> list[str]:
        train = TRAIN in (a, b)
        if a == TRAIN or (b != TRAIN and self.sizes[a] > self.sizes[b]):
            a, b = b, a
        lines = []
        near = self.alike(a, b)
        equal = self.equal(a, b)
        if equal and not train:  # in training as well: see `leaks`
            fact = f"in {b} as well, byte for byte; scores on the two sets are not independent"
            lines.append(f"{self._count(a, equal)} {fact}.")
        lines += self._listed(a, near, f"nearly equal to one of {b}")
        scenes = self.alike(a, b, SCENE) if train else []
        if len(scenes) > len(near):
            fact = f"of the same scene as one of {b}, as neighbouring frames of a video are"
            lines += self._listed(a, scenes, fact)
        return lines

    def _count(self, name: str, found: Sequence) -> str:
        total = self.sizes[name]
        share = f"all {total}" if len(found) == total else f"{len(found)} of {total}"
        return f"{name}: {share} pictures"

    def _listed(self, name: str, found: Sequence, fact: str) -> list[str]:
        """A sentence with the first few of what was found, if anything was."""
        pairs = any(isinstance(one, NearDuplicate) for one in found)
        few = first_few([str(one) for one in found], 4 if pairs else 3)
        return [f"{self._count(name, found)} {fact} ({few})."] if found else []


def _duplicates(rows: pd.DataFrame, within: int) -> list[NearDuplicate]:
    rows = rows[rows["same"].isna() & (rows["distance"] <= within)]
    columns = (rows[name] for name in ("set", "other", "pair", "twin", "distance"))
    return [NearDuplicate((a, b), (one, other), d) for a, b, one, other, d in zip(*columns)]
