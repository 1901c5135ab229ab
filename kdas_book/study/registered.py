"""The analysis that ``book/studies/registration.md`` laid down before its runs: which of an arm's
tries is used, the endpoints of each run, and what the seeds say of a difference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from kdas_book.data.videos import clinicdb_sequence
from kdas_book.reports.comparison import holm
from kdas_book.study.results import KEYS, Results
from kdas_book.study.seeds import BASE, seed_table
from kdas_core import UserError

PRIMARY = ("kdas", BASE)
MARGIN = 0.01  # of Dice, either way: no more than this counts as no difference
MISSED = 0.05  # a polyp whose Dice is below this was missed
ALIKE = 0.001  # of validation Dice: tries this close to the best are as good
GATE = 0.03  # of validation Dice: by so much the teacher must be better than the student alone
ENOUGH = 8  # seeds, for a verdict on the primary contrast


def pooled(images: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``Results.images`` that count in the primary endpoint: each image once, so none
    of CVC-300 where CVC-ColonDB, which holds its frames, is there, and no byte-identical repeat.
    (Studies recorded before repeats were marked lack that column; their repeats stay.)
    """
    within = "CVC-300" if "CVC-ColonDB" in set(images["dataset"]) else None
    once = images[images["dataset"] != within]
    return once[~once["repeat"].astype(bool)] if "repeat" in once else once


def endpoints(results: Results) -> pd.DataFrame:
    """A row a run, index ``(objective, seed)``; the mean over the pooled images of ``dice`` (the
    primary endpoint), ``dice_last`` (of the last epoch) and ``agreement`` with the teacher's cut;
    ``missed``, the share of polyps that were missed; ``false_alarms``; ``calibration_error``.
    """
    images = pooled(results.images).assign(missed=lambda rows: rows["dice"] < MISSED)
    columns = ["dice", "missed", "dice_last", "agreement"]
    table = images.groupby(KEYS, sort=False)[columns].mean()
    scores = results.scores[results.scores["dataset"] != "CVC-300"]
    if "false_alarms" in scores:
        table["false_alarms"] = scores.groupby(KEYS, sort=False)["false_alarms"].first()
        share = scores["n_images"] / scores.groupby(KEYS)["n_images"].transform("sum")
        weighted = scores.assign(part=scores["calibration_error"] * share)
        whole = weighted.groupby(KEYS, sort=False)["part"]
        table["calibration_error"] = whole.sum(min_count=weighted["dataset"].nunique())
    return table


def agreement_in_error(results: Results, below: float = 0.5) -> pd.Series:
    """Of each student's run, the mean likeness to the teacher's cut (Dice) on the pooled images on
    which the teacher's own Dice is ``below`` this; index ``(objective, seed)``.
    """
    images = pooled(results.images)
    teacher = images[images["objective"] == "teacher"]
    of_teacher = teacher.groupby(["dataset", "name"])["dice"].mean()
    keys = pd.MultiIndex.from_frame(images[["dataset", "name"]])
    wrong = of_teacher.reindex(keys).to_numpy() < below
    students = images[wrong & (images["objective"] != "teacher")]
    return students.groupby(KEYS, sort=False)["agreement"].mean()


def contrasts(
    values: pd.Series, pairs: Sequence[tuple[str, str]], margin: float = MARGIN
) -> pd.DataFrame:
    """Differences of an endpoint, seed by seed, of the seeds that both labels have.

    Args:
        values: an endpoint of each run, index ``(objective, seed)``.
        pairs: labels ``(a, b)``: a row is about a − b.

    Returns:
        index ``a − b``; ``difference``, ``sd``, ``seeds``; ``low`` and ``high``, the 95 % interval
        of Student's t; ``low_90`` and ``high_90``; ``p``, two-sided; ``verdict``. One seed has no
        interval, and is ``undecided here``.
    """
    rows = {}
    for a, b in pairs:
        gain = (values.loc[a] - values.loc[b]).dropna()
        n, mean, sd = len(gain), gain.mean(), gain.std()
        half, half_90 = (stats.t.ppf(q, n - 1) * sd / np.sqrt(n) for q in (0.975, 0.95))
        wide, narrow = (mean - half, mean + half), (mean - half_90, mean + half_90)
        row = {"difference": mean, "sd": sd, "seeds": n}
        row |= dict(zip(("low", "high", "low_90", "high_90"), wide + narrow))
        row["p"] = stats.ttest_1samp(gain, 0).pvalue if n > 1 else np.nan
        rows[f"{a} − {b}"] = row | {"verdict": verdict(*wide, *narrow, margin)}
    return pd.DataFrame.from_dict(rows, orient="index")


def verdict(low: float, high: float, low_90: float, high_90: float, margin: float = MARGIN) -> str:
    """*above* or *below* where the 95 % interval leaves out 0; *equivalent* where the 90 % interval
    lies within the margin (two one-sided tests); both, where both hold.

    >>> verdict(0.002, 0.008, 0.003, 0.007)
    'above and equivalent here'
    >>> verdict(-0.02, 0.03, -0.01, 0.02)
    'undecided here'
    """
    side = "above" if low > 0 else "below" if high < 0 else ""
    same = "equivalent" if -margin < low_90 and high_90 < margin else ""
    return (" and ".join(filter(None, (side, same))) or "undecided") + " here"


def secondary(results: Results) -> pd.DataFrame:
    """The registered contrasts of the primary endpoint besides the primary one: every other arm
    against ``supervised``, what A(·) adds, KDAS against logit distillation. ``p_holm`` corrects
    over all of them.
    """
    pairs = [(label, BASE) for label in results.labels if label not in PRIMARY]
    pairs += [("attention_only", "channel_wise"), ("kdas", "logit_kd")]
    there = set(results.scores["objective"])
    table = contrasts(endpoints(results)["dice"], [p for p in pairs if there >= set(p)])
    return table.assign(p_holm=holm(table["p"])) if table["p"].notna().all() else table


def all_contrasts(results: Results) -> pd.DataFrame:
    """The primary contrast with its ``crossed`` interval, then the :func:`secondary` ones; a
    UserError if the study has not trained the two of the primary one.
    """
    if missing := set(PRIMARY) - set(results.scores["objective"]):
        raise UserError(f"The study {results.name} has not trained {' and '.join(missing)}.")
    first = pd.DataFrame([primary(results)], [" − ".join(PRIMARY)])
    return pd.concat([first, secondary(results)])


def few_masks(results: Results) -> pd.DataFrame:
    """The registered contrasts of a study of few masks, of the last epoch: what a teacher adds,
    what images without masks add, and both; ``p_holm`` corrects over all of them.
    """
    arms = [label.removesuffix("_all") for label in results.labels if label.endswith("_all")]
    pairs = [(name, BASE) for arm in arms for name in (arm, f"{arm}_all")]
    pairs += [(f"{arm}_all", arm) for arm in arms]
    there = set(results.scores["objective"])
    found = contrasts(endpoints(results)["dice_last"], [p for p in pairs if there >= set(p)])
    return found.assign(p_holm=holm(found["p"])) if found["p"].notna().all() else found


def tables(results: Results) -> dict[str, tuple[str, pd.DataFrame, str]]:
    """What was registered for this study, where its labels are those of a registered one: file stem
    → title, table, format of numbers.
    """
    labels, found = set(results.labels), {}
    if labels >= set(PRIMARY):
        of_arms = endpoints(results).reset_index().rename(columns={"objective": "method"})
        texts = seed_table(of_arms)["mean ± sd"].unstack()
        order = [name for name in ("teacher", *results.labels) if name in texts.index]
        found["endpoints"] = "Registered endpoints, each image once", texts.loc[order], ".4f"
    if labels >= {*PRIMARY, "channel_wise"}:
        found["contrasts"] = "Registered contrasts of mean Dice", all_contrasts(results), ".4f"
    if labels >= {f"{PRIMARY[0]}_all", BASE}:
        found["few_masks"] = "Few masks: registered contrasts", few_masks(results), ".4f"
    if any("_lr" in label for label in labels):
        found["chosen"] = "The try that is used of each arm", choose(results), ".4f"
    return found


def crossed(results: Results, a: str, b: str, draws: int = 10_000) -> tuple[float, float]:
    """95 % interval of the mean difference a − b of Dice for other seeds *and* other images: a
    bootstrap that draws seeds and, independently, images, frames of CVC-ClinicDB by video.
    """
    images = pooled(results.images)
    wide = images.pivot(index=["dataset", "name"], columns=KEYS, values="dice")
    gain = (wide[a] - wide[b]).dropna(axis=1)
    keys = [_video(*key) for key in gain.index] if not _drawn(results) else list(gain.index)
    group = pd.factorize(pd.Series(keys, dtype=object))[0]
    sums = np.add.reduceat(gain.to_numpy()[np.argsort(group, kind="stable")], _starts(group))
    sizes = np.bincount(group)
    rng = np.random.default_rng(0)
    seeds, videos = sums.shape[1], len(sizes)
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws) / seeds
    by_video = rng.multinomial(videos, np.full(videos, 1 / videos), draws)
    means = ((by_video @ sums) * by_seed).sum(axis=1) / (by_video @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _drawn(results: Results) -> bool:
    return results.about["data"]["synthetic"]


def _video(dataset: str, name: str) -> tuple[str, str]:
    """What is drawn as one: a video of CVC-ClinicDB, elsewhere an image."""
    video = clinicdb_sequence(name) if dataset == "CVC-ClinicDB" else None
    return dataset, f"video {video}" if video else name


def _starts(group: np.ndarray) -> np.ndarray:
    """Where each group begins once the rows are sorted by group."""
    return np.concatenate([[0], np.cumsum(np.bincount(group))[:-1]])


def choose(tries: Results) -> pd.DataFrame:
    """Of each arm's tries the one that ``ablation.yaml`` uses; validation alone has a say.

    A label is ``<arm>`` or ``<arm>_lr<rate>...``. The highest validation Dice wins; of those within
    ``ALIKE`` of it the lowest learning rate, then the weakest distillation. Index: the arm; columns
    ``label``, ``validation_dice``, ``tries`` and ``at_edge``: is the rate the lowest or highest
    that was tried?
    """
    reached = tries.scores.drop_duplicates(KEYS).groupby("objective")["validation_dice"].mean()
    table = reached[tries.labels].rename("validation_dice").rename_axis("label").reset_index()
    recipes = table["label"].map(tries.about["recipes"])
    for name in ("learning_rate", "attention_weight", "alpha"):
        table[name] = [recipe[name] for recipe in recipes]
    table["arm"] = table["label"].map(lambda label: re.sub(r"_lr.*", "", label))
    chosen = {}
    for arm, mine in table.groupby("arm", sort=False):
        good = mine[mine["validation_dice"] >= mine["validation_dice"].max() - ALIKE]
        best = good.sort_values(["learning_rate", "attention_weight", "alpha"]).iloc[0]
        edges = mine["learning_rate"].agg(["min", "max"]).tolist()
        facts = {"label": best["label"], "validation_dice": best["validation_dice"]}
        chosen[arm] = facts | {"tries": len(mine), "at_edge": best["learning_rate"] in edges}
    return pd.DataFrame.from_dict(chosen, orient="index").rename_axis("arm")


def gate(tries: Results) -> tuple[float, bool]:
    """By how much the teacher's validation Dice exceeds that of the tuned ``supervised``; is that
    enough to distil from? A UserError: no teacher was trained.
    """
    teacher = tries.scores.loc[tries.scores["objective"] == "teacher", "validation_dice"]
    if teacher.isna().all():
        raise UserError("The study's teacher was not trained here, and has no validation Dice.")
    lead = float(teacher.iloc[0] - choose(tries).loc[BASE, "validation_dice"])
    return lead, lead >= GATE


def primary(results: Results) -> dict[str, object]:
    """The primary contrast: its row of :func:`contrasts`, the ``crossed`` interval and the verdict
    by the wider of the two intervals; ``undecided here`` below eight seeds, whatever they say.
    """
    row = contrasts(endpoints(results)["dice"], [PRIMARY]).iloc[0].to_dict()
    low, high = crossed(results, *PRIMARY)
    if high - low > row["high"] - row["low"]:  # the registration lets the wider one decide
        side = "above" if low > 0 else "below" if high < 0 else ""
        same = "equivalent" if "equivalent" in row["verdict"] else ""
        row["verdict"] = (" and ".join(filter(None, (side, same))) or "undecided") + " here"
    if row["seeds"] < ENOUGH:
        row["verdict"] = "undecided here"
    return row | {"crossed": (low, high)}
