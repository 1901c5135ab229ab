"""Every hyperparameter of a run in one frozen object: presets, YAML in and out, and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from kdas_core import UserError


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, and how. The defaults are the released recipe of KDAS.

    Sizes are in pixels, rates per optimiser step, fractions in [0, 1). ``None`` means "all".
    """

    preset: str = "paper"
    # Networks: names of timm backbones; pretrained = start from ImageNet weights.
    teacher: str = "pvt_v2_b2"
    student: str = "pvt_v2_b0"
    teacher_weights: str = ""  # a file; relative to the repository. Used if it is there, otherwise the teacher is trained.
    pretrained_teacher: bool = True
    pretrained_student: bool = True
    # Data
    image_size: int = 352
    train_images: int | None = None
    test_images: int | None = None  # of each test set
    validation_fraction: float = 0.1
    augment: bool = False
    soft_masks: bool = True  # masks resized bilinearly, as released; False keeps them binary
    synthetic_images: int = 0  # pairs to make where there is no data; 0: stop and say so
    synthetic_test_images: int = 0
    # Optimisation
    epochs: int = 99
    teacher_epochs: int = 99
    batch_size: int = 16
    learning_rate: float = 1e-4
    teacher_learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    schedule: str = "constant"  # or "cosine", down to 0 after a warm-up
    warm_up: float = 0.05  # share of the steps over which a cosine schedule rises
    scales: tuple[float, ...] = (0.75, 1.0, 1.25)
    random_scale: bool = False  # one scale a batch, drawn, instead of a step at each
    gradient_clamp: float = 0.5  # every element of the gradient is clamped to ± this
    gradient_norm: float = 0.0  # above 0: the gradient is shortened to this length instead
    accumulate: int = 1  # backward passes per step; the batch is divided among them
    precision: str = "float32"  # or "bf16", "fp16" (GPU); losses are float32 in any case
    freeze_statistics: bool = (
        False  # batch norm uses its running statistics and leaves them as they are
    )
    ema: float = 0.0  # above 0: validate and keep an average of the weights with this decay
    patience: int = 0  # above 0: stop after so many epochs without a better one
    select_on: str = "validation"
    # Speed alone: the numbers stay the same up to rounding.
    teacher_graph: bool = False  # let the teacher record a graph that nobody uses, as released
    teacher_cache: bool = (
        False  # keep the teacher's maps of unaugmented images on disk, in half precision
    )
    channels_last: bool = False
    compile: bool = False
    # Distillation
    objective: str = "kdas"
    temperature: float = 2.0
    alpha: float = 0.3
    attention_weight: float = 1.0
    guiding_weight: float = 1.0
    distillation_warm_up: float = 0.0  # share of the steps over which alpha rises from 0
    weighted_bce: bool = False
    seed: int = 0
    teacher_seed: int | None = None  # of the teacher's own training; None: the same seed

    def __post_init__(self):
        object.__setattr__(self, "scales", tuple(self.scales))
        positive = (
            "image_size",
            "epochs",
            "teacher_epochs",
            "batch_size",
            "learning_rate",
            "temperature",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must be positive.")
        if self.image_size % 32:
            raise UserError(f"image_size is {self.image_size}; the networks need a multiple of 32.")
        if not 0 < self.validation_fraction < 1:
            raise UserError(
                f"validation_fraction is {self.validation_fraction}; it must lie between 0 and 1."
            )
        if not 0 <= self.alpha <= 1:
            raise UserError(f"alpha is {self.alpha}; it weighs two parts and must lie in [0, 1].")
        if not 0 <= self.distillation_warm_up <= 1:
            raise UserError(
                f"distillation_warm_up is {self.distillation_warm_up}; it is a share of the steps and must lie in [0, 1]."
            )
        for name, known in (
            ("schedule", ("constant", "cosine")),
            ("precision", ("float32", "bf16", "fp16")),
        ):
            if getattr(self, name) not in known:
                raise UserError(f'{name} is "{getattr(self, name)}"; choose {" or ".join(known)}.')
        if self.select_on != "validation":
            raise UserError(
                f'select_on is "{self.select_on}"; only validation is possible. The released program keeps the epoch that is '
                "best on the test images, and a score on images that chose the network is no test (chapter 6)."
            )
        if not 0 <= self.ema < 1:
            raise UserError(
                f"ema is {self.ema}; it is a decay and must lie in [0, 1), such as 0.999."
            )
        if self.accumulate < 1 or self.accumulate > self.batch_size:
            raise UserError(
                f"accumulate is {self.accumulate}; it must lie between 1 and batch_size ({self.batch_size})."
            )
        if self.teacher_cache and (self.augment or self.random_scale):
            raise UserError(
                "teacher_cache needs images that stay the same; switch augment and random_scale off."
            )

    def for_teacher(self) -> Recipe:
        """The recipe under which the teacher of this recipe is trained: supervised, with the
        teacher's epochs and rate.

        Hyperparameters that concern the student alone go back to their defaults, so that one teacher serves
        all objectives.
        """
        plain: dict[str, Any] = {name: _DEFAULTS[name] for name in _OF_THE_STUDENT}
        plain |= {"epochs": self.teacher_epochs, "learning_rate": self.teacher_learning_rate}
        seed = self.seed if self.teacher_seed is None else self.teacher_seed
        return replace(self, objective="supervised", seed=seed, **plain)

    def fingerprint(self, *more: str) -> str:
        """Eight hexadecimal digits that change with any hyperparameter (and with ``more``, such as the names
        of the images).
        """
        text = json.dumps([asdict(self), *more], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def to_yaml(self, path: str | Path) -> None:
        Path(path).write_text(self.as_yaml())

    def as_yaml(self) -> str:
        """Every hyperparameter, one a line."""
        return yaml.safe_dump(asdict(self) | {"scales": list(self.scales)}, sort_keys=False)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Recipe:
        """Raises UserError: no such file, no mapping, or a key that is not a hyperparameter."""
        path = Path(path)
        if not path.is_file():
            raise UserError(
                f"{path} does not exist; a recipe is a YAML file such as runs/<name>/recipe.yaml."
            )
        values = yaml.safe_load(path.read_text())
        if not isinstance(values, dict):
            raise UserError(f"{path} is no recipe: hyperparameters and their values are expected.")
        _refuse_unknown(values, f"{path}: ")
        return cls(**values)


_DEFAULTS = {field.name: field.default for field in fields(Recipe)}
_OF_THE_STUDENT = (
    *(
        "student",
        "pretrained_student",
        "temperature",
        "alpha",
        "attention_weight",
        "guiding_weight",
    ),
    *("distillation_warm_up", "teacher_graph", "teacher_cache", "teacher_seed"),
)

# What the released program does and, as far as one can tell, was not meant to do. A hyperparameter each: (the
# released value, the value that mends it, what happens). The preset "paper" has the released values
# with three exceptions: the objective is chosen for each run, a graph for the teacher changes no
# number, and a look at the test images would spoil all of them.
RELEASED_SLIPS: dict[str, tuple[Any, Any, str]] = {
    "objective": ("released", "kdas", "the attention term has a gradient of exactly zero"),
    "augment": (
        False,
        True,
        "augmentation is never on: a flag that is True is compared with a text",
    ),
    "schedule": (
        "constant",
        "cosine",
        "the rate never falls: the first decay is due at epoch 200; training stops at 99",
    ),
    "soft_masks": (True, False, "masks are resized bilinearly, so outlines are neither 0 nor 1"),
    "weighted_bce": (False, True, "the weights of the weighted cross-entropy cancel"),
    "teacher_graph": (True, False, "the teacher computes gradients that nobody uses"),
    "select_on": (
        "test",
        "validation",
        "the epoch that is kept is the best one on the test images",
    ),
}

# What differs from the released recipe, and only that.
_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"teacher_weights": "teacher_weights/PolypPVT.pth"},
    "colab": {
        "teacher_weights": "teacher_weights/PolypPVT.pth",
        "epochs": 20,
        "teacher_epochs": 15,
        "scales": (1.0,),
        "schedule": "cosine",
        "augment": True,
    },
    "laptop": {
        "teacher": "tf_efficientnet_lite2",
        "pretrained_student": False,
        "image_size": 128,
        "epochs": 12,
        "teacher_epochs": 8,
        "learning_rate": 5e-4,
        "teacher_learning_rate": 5e-4,
        "scales": (1.0,),
        "schedule": "cosine",
        "augment": True,
    },
    # A transformer learns next to nothing in half a minute from scratch; a small convolutional
    # teacher does, so that there is something to distil.
    "smoke": {
        "teacher": "resnet18",
        "pretrained_teacher": False,
        "pretrained_student": False,
        "image_size": 96,
        "train_images": 160,
        "test_images": 8,
        "synthetic_images": 192,
        "synthetic_test_images": 8,
        "validation_fraction": 1 / 6,
        "batch_size": 8,
        "epochs": 8,
        "teacher_epochs": 8,
        "learning_rate": 1e-3,
        "teacher_learning_rate": 1e-3,
        "scales": (1.0,),
        "schedule": "cosine",
    },
}
PRESETS = ("smoke", "laptop", "colab", "paper")


def preset(name: str, **overrides: Any) -> Recipe:
    """The recipe of that name, with some hyperparameters set otherwise.

    Raises:
        UserError: unknown preset or hyperparameter, or a value that the recipe refuses.

    >>> preset("smoke", seed=3).seed
    3
    """
    if name not in _PRESETS:
        raise UserError(f'There is no preset "{name}"; choose one of {", ".join(PRESETS)}.')
    _refuse_unknown(overrides)
    return Recipe(**{"preset": name, **_PRESETS[name], **overrides})


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """``["alpha=0.5", "scales=[1.0]"]`` -> hyperparameters with values of their own types (YAML's rules for
    numbers and lists).

    Raises:
        UserError: no ``=``, an unknown hyperparameter, or a value of another type.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f'"{setting}" is no setting; write key=value, for example alpha=0.5.')
        values |= typed({key: yaml.safe_load(text)})
    return values


def typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as YAML reads them, with values of their own types: ``{"learning_rate": "1e-3"}`` ->
    ``{"learning_rate": 0.001}``.

    Raises:
        UserError: an unknown hyperparameter, or a value of another type.
    """
    _refuse_unknown(values)
    return {key: _as_type_of(key, value) for key, value in values.items()}


def _as_type_of(key: str, value: Any) -> Any:
    default = _DEFAULTS[key]
    if default is None:
        fits = value is None or (isinstance(value, int) and not isinstance(value, bool))
    elif isinstance(default, bool):
        fits = isinstance(value, bool)
    elif isinstance(default, float):
        if isinstance(value, str):  # YAML reads 1e-3 as text
            try:
                value = float(value)
            except ValueError:
                pass
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        value = float(value) if fits else value
    elif isinstance(default, tuple):
        fits = isinstance(value, list) and all(isinstance(v, (int, float)) for v in value)
    else:
        fits = isinstance(value, type(default)) and not isinstance(value, bool)
    if not fits:
        raise UserError(f"{key}={value!r} does not fit; {key} is like {default!r}.")
    return value


def _refuse_unknown(values: Mapping[str, Any], where: str = "") -> None:
    unknown = sorted(set(values) - set(_DEFAULTS))
    if unknown:
        raise UserError(
            f"{where}there is no hyperparameter {', '.join(unknown)}; the hyperparameters are {', '.join(_DEFAULTS)}."
        )
