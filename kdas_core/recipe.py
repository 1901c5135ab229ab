"""Every hyperparameter of a run in one frozen object: presets, YAML in and out, a fingerprint."""

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import yaml

from kdas_core import UserError


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, and how. The defaults are the released recipe of KDAS.

    Sizes are in pixels, rates per optimiser step, fractions in [0, 1). ``None`` means "all". Of a
    value that makes no sense a UserError says which would.
    """

    preset: str = "paper"
    # Networks: names of timm backbones; pretrained = start from ImageNet weights.
    teacher: str = "pvt_v2_b2"
    student: str = "pvt_v2_b0"
    teacher_weights: str = ""  # a file, relative to the repository; without it one is trained
    pretrained_teacher: bool = True
    pretrained_student: bool = True
    decoder_width: int = 32  # channels inside the student's decoder
    # Data
    image_size: int = 352
    teacher_image_size: int | None = None  # the teacher may see its images larger
    train_images: int | None = None
    labelled: float = 1.0  # share of these whose masks are used
    use_unlabelled: bool = False  # distil on the others, and on a folder without masks, as well
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
    accumulate: int = 1  # micro-batches per step; the batch is divided among them
    precision: str = "float32"  # or "bf16", "fp16", "tf32" (GPUs); losses are float32 in any case
    freeze_statistics: bool = False  # batch norm uses its running statistics, and keeps them
    ema: float = 0.0  # above 0: validate and keep an average of the weights with this decay
    patience: int = 0  # above 0: stop after so many epochs without a better one
    # Speed alone: the numbers stay the same up to rounding.
    teacher_graph: bool = False  # let the teacher record a graph that nobody uses, as released
    channels_last: bool = False
    compile: bool = False
    # Distillation
    objective: str = "kdas"
    temperature: float = 2.0
    alpha: float = 0.3
    attention_weight: float = 1.0
    guiding_weight: float = 1.0
    guide: str = "attended"  # what kdas guides, as the figure; "raw": our earlier reading of it
    reduction: str = "sum"  # of attention terms over pixels; "mean": S² times smaller, as released
    distillation_warm_up: float = 0.0  # share of the steps over which alpha rises from 0
    weighted_bce: bool = False
    control: str = "none"  # or "oracle", "blurred", "shuffled": what stands for the teacher's maps
    seed: int = 0
    teacher_seed: int | None = None  # of the teacher's own training; None: the same seed

    def __post_init__(self):
        for name, value in vars(self).items():
            object.__setattr__(self, name, _as_type_of(name, value))
        rules = [(name, getattr(self, name) > 0, "it must be positive") for name in _POSITIVE]
        rules += [(n, getattr(self, n) >= 0, "it must not be negative") for n in _NOT_NEGATIVE]
        rules += [(name, 0 <= getattr(self, name) <= 1, "it lies in [0, 1]") for name in _SHARES]
        split = 0 < self.validation_fraction < 1
        larger = self.image_size if self.teacher_image_size is None else self.teacher_image_size
        room = f"it must be a multiple of 32, from image_size ({self.image_size}) on"
        most = f"it must lie between 1 and batch_size ({self.batch_size})"
        rules += [
            ("image_size", self.image_size % 32 == 0, "the networks need a multiple of 32"),
            ("teacher_image_size", larger >= self.image_size and larger % 32 == 0, room),
            ("validation_fraction", split, "it must lie between 0 and 1"),
            ("scales", min(self.scales) * self.image_size >= 32, "each must leave 32 pixels"),
            ("ema", 0 <= self.ema < 1, "it is a decay and lies in [0, 1), such as 0.999"),
            ("accumulate", 1 <= self.accumulate <= self.batch_size, most),
        ]
        if self.objective in ("fitnet", "channel_wise_features"):
            told = f"{self.objective} compares it channel by channel with the teacher's, of 32"
            rules.append(("decoder_width", self.decoder_width == 32, told))
        if self.use_unlabelled:
            masks = self.objective in ("supervised", "region_affinity")
            masks |= self.control in ("oracle", "blurred")
            told = f"{self.objective} with control {self.control} needs the mask of every image"
            rules.append(("use_unlabelled", not masks, told))
        for name, choices in _CHOICES.items():
            rules.append((name, getattr(self, name) in choices, f"choose {' or '.join(choices)}"))
        for name, holds, rule in rules:
            if not holds:
                raise UserError(f"{name} is {getattr(self, name)!r}; {rule}.")

    def for_teacher(self) -> "Recipe":
        """The recipe of this recipe's teacher: supervised, with the teacher's epochs and rate. What
        concerns the student alone gets its default, so that one teacher serves all objectives.
        """
        plain: dict[str, Any] = {name: _DEFAULTS[name] for name in _OF_THE_STUDENT}
        plain |= {"epochs": self.teacher_epochs, "learning_rate": self.teacher_learning_rate}
        plain["image_size"] = self.teacher_image_size or self.image_size
        plain["seed"] = self.seed if self.teacher_seed is None else self.teacher_seed
        return replace(self, objective="supervised", **plain)

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The rate at a step of so many: constant, or a warm-up and half a cosine down to 0."""
        if self.schedule == "constant":
            return self.learning_rate
        rising = max(1, int(steps * self.warm_up))
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        return self.learning_rate * min((step + 1) / rising, cosine)

    def fingerprint(self, *more: str) -> str:
        """Eight hexadecimal digits that change with any hyperparameter, and with ``more``; one that
        is added later, and left at its default, does not change them.
        """
        own = {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}
        return hashlib.sha256(json.dumps([own, *more], sort_keys=True).encode()).hexdigest()[:8]

    def as_yaml(self) -> str:
        """Every hyperparameter, one a line."""
        return yaml.safe_dump(asdict(self) | {"scales": list(self.scales)}, sort_keys=False)

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Recipe":
        """Raises UserError: no such file, no mapping, or a key that is no hyperparameter."""
        if not Path(path).is_file():
            raise UserError(f"{path} does not exist; name a run's recipe.yaml, or one like it.")
        values = yaml.safe_load(Path(path).read_text())
        if not isinstance(values, dict):
            raise UserError(f"{path} is no recipe: hyperparameters and their values are expected.")
        _refuse_unknown(values, f"{path}: ")
        return cls(**values)


_DEFAULTS = {field.name: field.default for field in fields(Recipe)}
_POSITIVE = """image_size decoder_width epochs teacher_epochs batch_size learning_rate
    teacher_learning_rate temperature""".split()
_SHARES = ("alpha", "warm_up", "distillation_warm_up", "labelled")
_NOT_NEGATIVE = """weight_decay gradient_clamp gradient_norm patience attention_weight
    guiding_weight synthetic_images synthetic_test_images""".split()
_CHOICES = {"schedule": ("constant", "cosine"), "precision": ("float32", "bf16", "fp16", "tf32")}
_CHOICES |= {"guide": ("attended", "raw"), "reduction": ("sum", "mean")}
_CHOICES["control"] = ("none", "oracle", "blurred", "shuffled")
_OF_THE_STUDENT = """student pretrained_student decoder_width temperature alpha attention_weight
    guiding_weight guide reduction distillation_warm_up control teacher_graph teacher_seed
    teacher_image_size use_unlabelled""".split()

# What differs from the released recipe, and only that.
_RELEASED_TEACHER = {"teacher_weights": "teacher_weights/PolypPVT.pth"}
_SHORT = {"scales": (1.0,), "schedule": "cosine"}
_PRESETS: dict[str, dict[str, Any]] = {
    # A transformer learns next to nothing in half a minute from scratch; a small convolutional
    # teacher does, so that there is something to distil.
    "smoke": _SHORT
    | {"teacher": "resnet18", "pretrained_teacher": False, "pretrained_student": False}
    | {"image_size": 96, "train_images": 160, "test_images": 8, "validation_fraction": 1 / 6}
    | {"synthetic_images": 192, "synthetic_test_images": 8, "batch_size": 8}
    | {"epochs": 8, "teacher_epochs": 8, "learning_rate": 1e-3, "teacher_learning_rate": 1e-3},
    "laptop": _SHORT
    | {"teacher": "tf_efficientnet_lite2", "pretrained_student": False}
    | {"image_size": 128, "augment": True, "epochs": 12, "teacher_epochs": 8}
    | {"learning_rate": 5e-4, "teacher_learning_rate": 5e-4},
    # For a rendered book: drawn polyps, networks that find them, and an hour of two cores.
    "publish": _SHORT
    | {"teacher": "tf_efficientnet_lite2", "student": "tf_efficientnet_lite0", "augment": True}
    | {"image_size": 192, "train_images": 540, "synthetic_images": 600, "synthetic_test_images": 24}
    | {"epochs": 4, "teacher_epochs": 5, "learning_rate": 1e-3, "teacher_learning_rate": 1e-3}
    | {"temperature": 4.0, "attention_weight": 0.03, "guiding_weight": 0.003},
    "colab": _RELEASED_TEACHER | _SHORT | {"augment": True, "epochs": 20, "teacher_epochs": 15},
    "paper": _RELEASED_TEACHER,
}
PRESETS = tuple(_PRESETS)


def preset(name: str, **overrides: Any) -> Recipe:
    """The recipe of that name, with some hyperparameters set otherwise; UserError for an unknown
    preset or hyperparameter, or a value that the recipe refuses.
    """
    if name not in _PRESETS:
        raise UserError(f'There is no preset "{name}"; choose one of {", ".join(PRESETS)}.')
    _refuse_unknown(overrides)
    return Recipe(**{"preset": name, **_PRESETS[name], **overrides})


def typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as YAML reads them, in their own types (``"1e-3"``: 0.001); UserError for one
    that is unknown or of another type."""
    _refuse_unknown(values)
    return {key: _as_type_of(key, value) for key, value in values.items()}


def _as_type_of(key: str, value: Any) -> Any:
    default = _DEFAULTS[key]
    kind = int if default is None else type(default)
    number = isinstance(value, Real) and not isinstance(value, bool)
    if kind is float and (number or isinstance(value, str)):  # YAML reads 1e-3 as text
        with suppress(ValueError):
            if math.isfinite(float(value)):
                return float(value)
    if kind is int and isinstance(value, Integral) and number:  # NumPy's as well
        return int(value)
    if kind is tuple and isinstance(value, (list, tuple)) and value:
        return tuple(_as_type_of("alpha", part) for part in value)
    fits = type(value) is kind is not float and value != ()
    if not (value is None if default is None else fits):
        raise UserError(f"{key}={value!r} does not fit; {key} is like {default!r}.")
    return value


def _refuse_unknown(values: Mapping[str, Any], where: str = "") -> None:
    unknown = ", ".join(sorted(set(values) - set(_DEFAULTS)))
    if unknown:
        known = f"the hyperparameters are {', '.join(_DEFAULTS)}"
        raise UserError(f"{where}there is no hyperparameter {unknown}; {known}.")
