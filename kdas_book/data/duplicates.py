"""Which pictures are the same picture: byte for byte, or saved anew; and which show the same scene.

A picture is reduced to 256 bits that survive recompression and resizing (the perceptual hash of the
ImageHash library: the signs, against their median, of the 16 × 16 lowest cosine frequencies of its
grey values). The number of bits in which two pictures differ, 0 to 256, is their distance. Two
random pictures differ in about half of the bits.

Where `NEAR` and `SCENE` come from, measured on the 2072 public images that this book is developed
with:

====================================================
==========================================================
what two pictures are                                 distance
====================================================
========================================================== one picture saved as JPEG at quality 50,
or noisier   median 2, at most 6 one picture at half or twice its size, or 352 × 352   median 0, at
most 6
one picture a fifth brighter, whites cut off          median 6, at most 18
one picture less a rim of 1 % of its width            median 28, at most 50
the 3 near-duplicate pairs of Kvasir-SEG              2, 2, 2
next frames of one CVC-ClinicDB sequence              median 64, 1 in 100 up to 8, at most 114
frames of two sequences of CVC-ClinicDB               from 28
strangers (other source, or others of Kvasir-SEG)     one pair at 18, then from 42; 1 in 1000 up to 66, median 120
====================================================
==========================================================

The pair at 18 shows one polyp a moment apart. So up to 12 two files hold one picture, or frames
that a person hardly tells apart, and up to 32 they show one scene; 98 of 100 pairs of frames of one
video are farther apart than that. The shorter hash of 64 bits cannot do this: by it, six pairs of
strangers are as close as 4. Copies that are mirrored, turned or cropped are not recognised.
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


def fingerprint(grey: Image.Image) -> np.ndarray:
    """The 256 bits of a grey picture as int8 -1 and +1, shape (256,); all 0 for a flat picture,
    whose bits would be noise.
    """
    small = grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if np.asarray(small).std() < _FLAT:
        return np.zeros(BITS, np.int8)
    return np.where(
        imagehash.phash(small, hash_size=16, highfreq_factor=4).hash.ravel(), 1, -1
    ).astype(np.int8)


def nearest(
    prints: Sequence[np.ndarray], folders: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For every picture and every folder: how far the most similar picture of that folder is, and
    which it is.

    In a picture's own folder only *earlier* pictures count, so that of two equal ones the second is
    the repeat. All are compared with all: 20,000 pictures take 7 s on one core, and twice as many
    four times as long; the memory grows with n.

    Args:
        prints: n fingerprints, the folders' one after another.
        folders: how many pictures each folder has; the sum is n.

    Returns:
        distance int (n, len(folders)), `NONE` where the folder has no other picture; position int,
        the same shape, of the most similar picture among all n (the first of several).
    """
    n, ends = len(prints), np.cumsum(folders)
    codes = np.array(prints, dtype=np.float32).reshape(
        n, BITS
    )  # such whole numbers are exact in float32
    distance, position = np.full((n, len(folders)), NONE), np.zeros((n, len(folders)), dtype=int)
    for top in range(0, n, _ROWS):
        rows = np.arange(top, min(top + _ROWS, n))
        apart = (
            BITS - codes[rows] @ codes.T
        ) / 2  # equal bits count +1, others -1; a flat picture is 128 from all
        own = np.searchsorted(ends, rows, side="right")
        later = np.arange(n)[None] >= rows[:, None]
        for f, (start, stop) in enumerate(zip(ends - folders, ends)):
            if start == stop:
                continue
            part = np.where((own == f)[:, None] & later[:, start:stop], NONE, apart[:, start:stop])
            position[rows, f] = start + part.argmin(1)
            distance[rows, f] = part.min(1)
    return distance, position


# --- sets of pictures -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """What comparing needs of one picture: its pair of files, a digest of its file's bytes, its
    fingerprint.
    """

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
        (a, b), (one, other) = self.sets, (pair.image.name for pair in self.pairs)
        return f"{one} ~ {other}" if a == b else f"{a}/{one} ~ {b}/{other}"


class Comparison:
    """All pictures of some sets against each other.

    Args:
        sets: name of a set → its pictures. A set of the name ``TrainDataset`` is what the others
            must not share.
    """

    def __init__(self, sets: Mapping[str, Sequence[Picture]]):
        self.sets, self.names = sets, list(sets)
        self._all = [(name, picture) for name, pictures in sets.items() for picture in pictures]
        sizes = [len(pictures) for pictures in sets.values()]
        self._starts = dict(zip(sets, np.cumsum([0, *sizes])))
        self._digests = {
            name: {picture.digest for picture in pictures} for name, pictures in sets.items()
        }
        self._distance, self._position = nearest(
            [picture.bits for _, picture in self._all], np.array(sizes, dtype=int)
        )

    def repeats(self, name: str) -> list[str]:
        """``"5.jpg = 2.jpg"`` for every picture of a set that is an earlier one byte for byte."""
        first: dict[bytes, str] = {}
        found = []
        for picture in self.sets[name]:
            file = picture.pair.image.name
            if first.setdefault(picture.digest, file) != file:
                found.append(f"{file} = {first[picture.digest]}")
        return found

    def equal(self, name: str, other: str) -> list[str]:
        """The files of a set that are, byte for byte, in another set as well."""
        return [p.pair.image.name for p in self.sets[name] if p.digest in self._digests[other]]

    def alike(self, name: str, other: str, within: int = NEAR) -> list[NearDuplicate]:
        """For each picture of a set its twin in the other set (or, in its own, among the earlier
        ones), closest first.

        Left out are pictures that the other set holds byte for byte, and those without a twin
        ``within`` so many bits.
        """
        column, start, found = self.names.index(other), self._starts[name], []
        seen: set[bytes] = set()
        for i, picture in enumerate(self.sets[name], start):
            known = seen if name == other else self._digests[other]
            if picture.digest not in known and self._distance[i, column] <= within:
                twin = self._all[self._position[i, column]][1]
                found.append(
                    NearDuplicate(
                        (name, other), (picture.pair, twin.pair), int(self._distance[i, column])
                    )
                )
            seen.add(picture.digest)
        return sorted(found, key=lambda twins: twins.distance)

    def shared(self) -> pd.DataFrame:
        """How many pictures of the row's set are in the column's, byte for byte or nearly; on the
        diagonal, repeats.
        """
        table = pd.DataFrame(0, index=self.names, columns=self.names)
        for a in self.names:
            for b in self.names:
                equal = self.repeats(a) if a == b else self.equal(a, b)
                table.loc[a, b] = len(equal) + len(self.alike(a, b))
        return table

    def near(self) -> tuple[NearDuplicate, ...]:
        """Every picture that is nearly one of an earlier set or an earlier one of its own, closest
        first.
        """
        found = [
            t
            for i, a in enumerate(self.names)
            for b in self.names[: i + 1]
            for t in self.alike(a, b)
        ]
        return tuple(sorted(found, key=lambda twins: twins.distance))

    def closest(self, anywhere: int = 4, between: int = 2) -> tuple[NearDuplicate, ...]:
        """The closest pictures that are not equal byte for byte, and the closest ones of two sets;
        none shown twice.
        """
        digest = {picture.pair: picture.digest for _, picture in self._all}
        pairs = [(a, b) for i, a in enumerate(self.names) for b in self.names[: i + 1]]
        every = sorted(
            (t for a, b in pairs for t in self.alike(a, b, within=BITS)),
            key=lambda twins: twins.distance,
        )
        chosen: list[NearDuplicate] = []
        used: set[bytes] = set()
        for pool, count in (
            (every, anywhere),
            ([t for t in every if t.sets[0] != t.sets[1]], between),
        ):
            stop = len(chosen) + count
            for twins in pool:
                both = {digest[pair] for pair in twins.pairs}
                if len(chosen) < stop and not used & both:
                    used |= both
                    chosen.append(twins)
        return tuple(chosen)

    def leaks(self, name: str) -> list[str]:
        """A sentence if pictures of a test set are training pictures byte for byte: no score on
        them is a test.
        """
        found = self.equal(name, TRAIN) if name != TRAIN and TRAIN in self.sets else []
        fact = f"{name}: {_count(found, self.sets[name])} in {TRAIN} as well, byte for byte ({first_few(found)})"
        return [f"{fact}; a score on them is no test, so remove them on one side."] if found else []

    def findings(self) -> list[str]:
        """What sets repeat and share, a sentence each."""
        lines = []
        for i, a in enumerate(self.names):
            lines += self._within(a)
            for b in self.names[:i]:
                lines += self._across(a, b)
        return lines

    def _within(self, name: str) -> list[str]:
        total, repeats, near = self.sets[name], self.repeats(name), self.alike(name, name)
        lines = []
        if repeats:
            lines.append(
                f"{name}: {_count(repeats, total)} equal to an earlier one, byte for byte ({first_few(repeats)})."
            )
        if near:
            lines.append(
                f"{name}: {_count(near, total)} nearly equal to an earlier one ({_first(near)})."
            )
        return lines

    def _across(self, a: str, b: str) -> list[str]:
        train = TRAIN in (a, b)
        if b != TRAIN and (a == TRAIN or len(self.sets[a]) > len(self.sets[b])):
            a, b = b, a
        total, equal, near, lines = self.sets[a], self.equal(a, b), self.alike(a, b), []
        if equal and not train:  # in training as well: see `leaks`
            fact = f"{a}: {_count(equal, total)} in {b} as well, byte for byte"
            lines.append(f"{fact}; scores on the two sets are not independent.")
        if near:
            lines.append(f"{a}: {_count(near, total)} nearly equal to one of {b} ({_first(near)}).")
        scenes = self.alike(a, b, SCENE) if train else []
        if len(scenes) > len(near):
            fact = f"{a}: {_count(scenes, total)} of the same scene as one of {b}, as neighbouring frames of a video are"
            lines.append(f"{fact} ({_first(scenes)}).")
        return lines


def _count(some: Sequence, of: Sequence) -> str:
    return (
        f"all {len(of)} pictures" if len(some) == len(of) else f"{len(some)} of {len(of)} pictures"
    )


def _first(twins: Sequence[NearDuplicate]) -> str:
    return first_few([str(pair) for pair in twins], 4)
