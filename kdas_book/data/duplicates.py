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

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image

from kdas_core.data.layout import Pair, first_few

TRAIN = "TrainDataset"
BITS = 256
EQUAL = -1  # the distance of two files of the same bytes
NEAR = 12
SCENE = 32
NONE = BITS + 1  # the distance where there is no other picture
_SIDE = 64  # cosine frequencies are taken at 64 × 64
_FLAT = 2.0  # grey levels of deviation below which a picture has nothing to compare
_ROWS = 256  # pictures compared with all others at a time


@dataclass(frozen=True)
class Picture:
    """What the two files of a pair tell when they are decoded."""

    pair: Pair
    digest: bytes  # of the image file's bytes
    bits: np.ndarray  # the image's `fingerprint`
    size: tuple[int, int]  # (width, height)
    share: float  # of the polyp
    marks: frozenset[str]  # what is unusual: keys of `check.MARKS`


class NearDuplicate(NamedTuple):
    """Two pictures that are alike: their sets, their pairs of files, and their distance in bits."""

    sets: tuple[str, str]
    pairs: tuple[Pair, Pair]
    distance: int

    def __str__(self) -> str:
        """``5.jpg ~ 2.jpg``, ``A/5.jpg ~ B/2.jpg``; of equal files ``5.jpg = 2.jpg``, ``5.jpg``."""
        (a, b), (one, other) = self.sets, (pair.image.name for pair in self.pairs)
        if self.distance == EQUAL:
            return f"{one} = {other}" if a == b else one
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


def nearest(prints: Sequence[np.ndarray], folders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of n pictures and every folder, the most similar picture of that folder. ``prints``
    are the fingerprints, the folders' one after another, and ``folders`` how many each has.

    Returns distance, int (n, len(folders)), `NONE` where the folder has no other picture (in its
    own only earlier ones count: of two equal ones the second is the repeat), and position, the same
    shape, of the most similar picture (the first of several) among all n. All are compared with
    all: 20,000 pictures take 7 s on one core.
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
    """All pictures of some sets (name → pictures) against each other. ``TrainDataset``, with which
    the others must share none, comes first.
    """

    def __init__(self, sets: Mapping[str, Sequence[Picture]]):
        self.sizes = {name: len(pictures) for name, pictures in sets.items()}
        every = [(name, picture) for name, pictures in sets.items() for picture in pictures]
        sizes = np.array(list(self.sizes.values()), dtype=int)
        distance, position = nearest([picture.bits for _, picture in every], sizes)
        # For each picture of a set the most similar one of the other (in its own: an earlier one),
        # or the first of the same bytes; closest first.
        self._found: dict[tuple[str, str], list[NearDuplicate]] = defaultdict(list)
        for j, (other, pictures) in enumerate(sets.items()):
            first = {picture.digest: picture.pair for picture in reversed(pictures)}
            for k, (name, picture) in enumerate(every):
                apart = EQUAL
                twin = first.get(picture.digest, picture.pair)
                if twin == picture.pair:
                    apart = int(distance[k, j])
                    twin = every[position[k, j]][1].pair
                pairs = (picture.pair, twin)
                self._found[name, other].append(NearDuplicate((name, other), pairs, apart))
        for found in self._found.values():
            found.sort(key=attrgetter("distance"))
        self._digests = {picture.pair: picture.digest for _, picture in every}

    def equal(self, a: str, b: str) -> list[NearDuplicate]:
        """The pictures of a set that are, byte for byte, in another set as well; of a set with
        itself, those that repeat an earlier one.
        """
        return [found for found in self._found[a, b] if found.distance == EQUAL]

    def alike(self, a: str, b: str, within: int = NEAR) -> list[NearDuplicate]:
        """Each picture of a set that is not `equal` to one of the other, with the most similar one
        there (in its own set: among the earlier ones), closest first.
        """
        return [found for found in self._found[a, b] if EQUAL < found.distance <= within]

    def near(self, within: int = NEAR) -> list[NearDuplicate]:
        """What is `alike` in each set and itself or an earlier set, closest first."""
        names = list(self.sizes)
        sets = [(a, b) for i, a in enumerate(names) for b in names[: i + 1]]
        found = [alike for a, b in sets for alike in self.alike(a, b, within)]
        return sorted(found, key=attrgetter("distance"))

    def closest(self) -> list[NearDuplicate]:
        """The four closest pairs of `near`, and the two closest between sets; no picture twice."""
        every = self.near(BITS)
        between = [found for found in every if found.sets[0] != found.sets[1]]
        chosen: list[NearDuplicate] = []
        used: set[bytes] = set()
        for pool, count in ((every, 4), (between, 2)):
            stop = len(chosen) + count
            for found in pool:
                both = {self._digests[pair] for pair in found.pairs}
                if len(chosen) < stop and not used & both:
                    used |= both
                    chosen.append(found)
        return chosen

    def leaks(self, name: str) -> list[str]:
        """A sentence if pictures of a test set are training pictures byte for byte."""
        found = self.equal(name, TRAIN) if name != TRAIN else []
        way_out = "; a score on them is no test, so remove them on one side"
        return self._sentence(found, f"in {TRAIN} as well, byte for byte", way_out)

    def findings(self) -> list[str]:
        """What sets repeat and share, a sentence each."""
        lines = []
        for i, a in enumerate(self.sizes):
            lines += self._sentence(self.equal(a, a), "equal to an earlier one, byte for byte")
            lines += self._sentence(self.alike(a, a), "nearly equal to an earlier one")
            for b in list(self.sizes)[:i]:
                smaller_first = b == TRAIN or self.sizes[a] <= self.sizes[b]
                lines += self._shared(a, b) if smaller_first else self._shared(b, a)
        return lines

    def _shared(self, a: str, b: str) -> list[str]:
        near = self.alike(a, b)
        lines = self._sentence(near, f"nearly equal to one of {b}")
        if b == TRAIN:  # which pictures are equal, `leaks` says
            scenes = self.alike(a, b, SCENE)
            fact = f"of the same scene as one of {b}, as neighbouring frames of a video are"
            return lines + (self._sentence(scenes, fact) if len(scenes) > len(near) else [])
        fact = f"in {b} as well, byte for byte; scores on the two sets are not independent"
        return self._sentence(self.equal(a, b), fact, named=False) + lines

    def _sentence(self, found: list, fact: str, then: str = "", named: bool = True) -> list[str]:
        """How many were found, if any, and the first few."""
        if not found:
            return []
        name = found[0].sets[0]
        total = self.sizes[name]
        count = f"all {total}" if len(found) == total else f"{len(found)} of {total}"
        few = first_few([str(one) for one in found], 3 if found[0].distance == EQUAL else 4)
        return [f"{name}: {count} pictures {fact}{f' ({few})' if named else ''}{then}."]
