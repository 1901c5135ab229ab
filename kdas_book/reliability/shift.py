"""Pictures that the student was not trained for: how strange they are, and what they cost."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.special import entr, expit
from scipy.stats import mannwhitneyu
from torch import nn

from kdas_book.reliability.pictures import Answers, Pictures, ask
from kdas_core import UserError
from kdas_core.data.augmentation import rng_for

# What each of five levels is: standard deviation of a Gaussian in % of the side; of the noise in
# grey levels; factor on all grey levels; quality of the JPEG; number of spots.
LEVELS: dict[str, tuple[float, ...]] = {
    "blur": (0.5, 1, 1.5, 2.5, 4),
    "noise": (8, 16, 24, 36, 54),
    "darkness": (0.8, 0.65, 0.5, 0.35, 0.2),
    "JPEG": (40, 25, 15, 8, 4),
    "specular spots": (4, 8, 16, 32, 64),
}
NEIGHBOURS = 10


def _blur(image: np.ndarray, percent: float, rng: Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), percent / 100 * image.shape[0])


def _noise(image: np.ndarray, deviation: float, rng: Generator) -> np.ndarray:
    return image + deviation * rng.standard_normal(image.shape)


def _darkness(image: np.ndarray, factor: float, rng: Generator) -> np.ndarray:
    return factor * image


def _jpeg(image: np.ndarray, quality: float, rng: Generator) -> np.ndarray:
    written = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    return np.asarray(cv2.imdecode(written, cv2.IMREAD_COLOR))[..., ::-1]


def _spots(image: np.ndarray, count: float, rng: Generator) -> np.ndarray:
    """White ellipses of 1 to 5 % of the side, with a soft rim; more keep those that were there."""
    height, width = image.shape[:2]
    light: np.ndarray = np.zeros((4 * height, 4 * width), np.uint8)  # finer, so that small is round
    for _ in range(int(count)):
        x, y, long, flat, turn = rng.random(5)
        axes = 4 * height * (0.01 + 0.04 * long) * np.array([1, 0.4 + 0.6 * flat])
        box = (4 * width * x, 4 * height * y), tuple(axes), 180 * turn
        cv2.ellipse(light, box, 255, -1)
    light = cv2.resize(light, (width, height), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(light, (0, 0), max(0.4, 0.003 * height))[..., None] / 255
    return image + soft * (255 - image)


_CORRUPTIONS = dict(zip(LEVELS, (_blur, _noise, _darkness, _jpeg, _spots)))


def corrupted(images: np.ndarray, kind: str, level: int, seed: int = 0) -> np.ndarray:
    """Images, uint8 (N, S, S, 3), spoilt in one of the ways of `LEVELS`, at a level from 1 to 5; at
    0 as they are. Chance depends on the seed and a picture's place only.

    The network's own small pictures are spoilt, not the camera's: a blur of 1 % is a pixel here.
    UserError: another kind or level.
    """
    if kind not in LEVELS or not 0 <= level <= 5:
        raise UserError(f"There is no {kind} of level {level}; there is {list(LEVELS)}, 0 to 5.")
    if not level:
        return images
    spoil, how_much = _CORRUPTIONS[kind], LEVELS[kind][level - 1]
    changed = [spoil(image, how_much, rng_for(seed, i)) for i, image in enumerate(images)]
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def dice_when_corrupted(
    networks: Mapping[str, nn.Module], pictures: Pictures, kinds: Sequence[str] = tuple(LEVELS)
) -> pd.DataFrame:
    """Dice, cut at 0.5, of each picture under each corruption: rows ``network``, ``corruption``,
    ``level`` (0: as it was), ``picture``, ``dice``. All networks see the same spoilt pictures.
    """
    rows = []
    for name, net in networks.items():
        clean = ask(net, pictures.images).dice(pictures.masks)
        for kind in kinds:
            for level in range(6):
                spoilt = corrupted(pictures.images, kind, level)
                dice = ask(net, spoilt).dice(pictures.masks) if level else clean
                rows += [(name, kind, level, i, value) for i, value in enumerate(dice)]
    return pd.DataFrame(rows, columns=["network", "corruption", "level", "picture", "dice"])


def relative_dice(table: pd.DataFrame) -> pd.Series:
    """Mean Dice over the pictures, as a part of the network's on clean pictures (level 0): 1 is no
    loss. Index: network, corruption, level. NaN for a network whose Dice is 0 on clean pictures.
    """
    means = table.groupby(["network", "corruption", "level"], sort=False)["dice"].mean()
    clean = means.xs(0, level="level").reindex(means.index.droplevel("level")).to_numpy()
    return means / np.where(clean > 0, clean, np.nan)


def strangeness(answers: Answers, known: np.ndarray) -> pd.DataFrame:
    """Four scores of each picture, each higher where the network should be less at home.

    - ``entropy`` of the prediction, mean over pixels, in nats;
    - ``1 − highest``: one minus the highest probability of any pixel, the polyp's if it is seen;
    - ``energy``: mean over pixels of −log(exp(z/2) + exp(−z/2)). A constant that is added to both
      logits of a pixel changes energy and no probability; one logit z leaves it open, and we read
      it as the pair z/2, −z/2;
    - ``distance``: from the picture's features, scaled to length 1, to the tenth nearest of
      ``known``, those of the training pictures (M, C), M ≥ 10; UserError for fewer.

    Sources: Hendrycks and Gimpel, ICLR 2017 (probability); Liu et al., NeurIPS 2020 (energy); Sun
    et al., ICML 2022 (distance); here for maps of one logit a pixel.
    """
    if len(known) < NEIGHBOURS:
        raise UserError(f"{len(known)} training pictures are given; {NEIGHBOURS} are needed.")
    z = answers.logits.reshape(len(answers.logits), -1).astype(float)
    p = expit(z)
    ours, theirs = (f / np.linalg.norm(f, axis=1)[:, None] for f in (answers.features, known))
    apart = np.sqrt(np.maximum(2 - 2 * ours @ theirs.T, 0))
    return pd.DataFrame(
        {
            "entropy": (entr(p) + entr(1 - p)).mean(axis=1),
            "1 − highest": 1 - p.max(axis=1),
            "energy": -np.logaddexp(z / 2, -z / 2).mean(axis=1),
            "distance": np.partition(apart, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1],
        }
    )


def auroc(usual: np.ndarray, strange: np.ndarray) -> float:
    """How often a strange picture has the higher score than a usual one, of all pairs; a tie counts
    half. 1: told apart; 0.5: not at all; below: strange pictures look more usual than usual ones.

    >>> auroc(np.array([1, 2, 3]), np.array([3, 4]))
    0.9166666666666666
    """
    n, m = len(usual), len(strange)
    if not n or not m:
        raise UserError("An AUROC needs pictures of both kinds.")
    return float(mannwhitneyu(strange, usual, method="asymptotic").statistic / (n * m))
