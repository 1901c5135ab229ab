"""A GPU that is only pretended, for tests of a GPU's path where there is none.

``install()`` gives this process one: ``torch.cuda.is_available()``, and whatever is sent to "cuda" becomes a `Card`, a tensor that
says ``cuda:0`` and keeps its values in host memory. It refuses what a GPU refuses: an operation on tensors of both places, and
``numpy()``. It counts what costs time there: uploads, copies from host to card, and waits of the host, for a number or a copy back.
What it cannot show: speed, memory, rounding, and kernels that give other sums from run to run.

How: a wrapper subclass takes every operation of PyTorch by ``__torch_dispatch__``, and runs it on the values inside. A mode does
so for operations that begin on the host, such as ``torch.zeros(2, device="cuda")``. To C++ a card is of the device that PyTorch
leaves to Python backends, "privateuseone", since the driver is asked about every other; autocast, which C++ therefore leaves
alone, is done by a second mode.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.optim.optimizer import _foreach_supported_types
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
_BELOW = "privateuseone"
_SETUP = "_setup_privateuseone_for_python_backend"
LACKING = (
    "" if hasattr(backend_registration, _SETUP) else f"PyTorch {torch.__version__} has no {_SETUP}"
)

uploads: Counter[str] = Counter()  # by the line of the project that asked for them
waits: Counter[str] = Counter()

# Operations that a GPU does with tensors of both places: copies, and indices of the host.
_BOTH_PLACES = {
    "_to_copy",
    "copy_",
    "index",
    "index_put",
    "index_put_",
    "_index_put_impl_",
    "_unsafe_index",
}
_WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}
# Besides what is tagged as pointwise, these take a host's tensor without dimensions for a number.
_TAKES_NUMBERS = {
    "where",
    "masked_fill",
    "masked_fill_",
    "fill_",
    "lerp",
    "lerp_",
    "clamp",
    "clamp_",
}


class Card(torch.Tensor):
    """A tensor on the pretended card; ``values`` is the same in host memory."""

    values: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> Card:
        like = {
            "strides": values.stride(),
            "storage_offset": values.storage_offset(),
            "dtype": values.dtype,
        }
        return torch.Tensor._make_wrapper_subclass(cls, values.size(), device=f"{_BELOW}:0", **like)

    def __init__(self, values: torch.Tensor):
        self.values = values

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    # With these two ``net.to("cuda")`` swaps what is inside a parameter, so that an optimiser still has the same parameter.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["values"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict, *_: Any) -> Card:
        return Card(inner["values"])

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"Card({self.values!r})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else repr(self)

    def __reduce_ex__(self, protocol: Any) -> Any:  # saved, and loaded with map_location="cpu"
        return self.values.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict) -> Card:
        if id(self) not in memo:
            copied = memo[id(self)] = Card(self.values.detach().clone()).requires_grad_(
                self.requires_grad
            )
            copied.__dict__.update({k: v for k, v in self.__dict__.items() if k != "values"})
        return memo[id(self)]


def _is_card(x: Any) -> bool:
    return isinstance(x, Card) or (
        isinstance(x, torch.device) and x.type in ("cuda", _BELOW, "pretended")
    )


def _inside(x: Any) -> Any:
    if isinstance(x, Card):
        return x.values
    return torch.device("cpu") if _is_card(x) else x


def _leaves(x: Any) -> list:
    """What stands in nested tuples, lists and dictionaries; PyTorch's own does much more, and takes much longer."""
    if isinstance(x, dict):
        x = x.values()
    elif not isinstance(x, (tuple, list)):
        return [x]
    return [leaf for part in x for leaf in _leaves(part)]


def _mapped(change: Any, x: Any) -> Any:
    if isinstance(x, dict):
        return {key: _mapped(change, value) for key, value in x.items()}
    if type(x) in (tuple, list):
        return type(x)([_mapped(change, part) for part in x])
    return change(x)


def _run(func: Any, args: tuple, kwargs: dict) -> Any:
    """Do on the values inside what is asked of cards: refuse, count, compute, wrap."""
    given = _leaves((args, kwargs))
    name = func._schema.name.removeprefix("aten::")
    cards = [x for x in given if isinstance(x, Card)]
    hosts = [x for x in given if isinstance(x, torch.Tensor) and not isinstance(x, Card)]
    place = next((x for x in given if isinstance(x, torch.device)), None)
    if cards and hosts:
        _refuse_mixture(func, name, args, hosts)
    _count(name, args, cards, hosts, place)
    inner_args, inner_kwargs = _mapped(_inside, (args, kwargs))
    inner_kwargs.pop("pin_memory", None)
    out = func(*inner_args, **inner_kwargs)
    stays_on_host = name == "_local_scalar_dense" or not (_is_card(place) if place else cards)
    if stays_on_host or (name == "copy_" and not isinstance(args[0], Card)):
        return args[0] if name == "copy_" else out
    return _wrapped(func, args, kwargs, out)


def _refuse_mixture(func: Any, name: str, args: tuple, hosts: list[torch.Tensor]) -> None:
    writes_to_host = (
        name.endswith("_") and name != "copy_" and any(args[0] is host for host in hosts)
    )
    numbers = torch.Tag.pointwise in func.tags or name in _TAKES_NUMBERS
    only_numbers = numbers and all(host.dim() == 0 for host in hosts)
    if writes_to_host or not (only_numbers or name in _BOTH_PLACES):
        shapes = [tuple(host.shape) for host in hosts]
        message = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
        raise RuntimeError(f"{message} ({func}; of the host: {shapes})")


def _count(name: str, args: tuple, cards: list, hosts: list, place: torch.device | None) -> None:
    if name == "_to_copy" and place is not None:
        if hosts and _is_card(place):
            uploads[_asked_by()] += 1
        elif cards and not _is_card(place):
            waits[_asked_by()] += 1
    elif name == "copy_" and cards and hosts:
        (uploads if isinstance(args[0], Card) else waits)[_asked_by()] += 1
    elif name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1]):
        waits[_asked_by()] += 1
    elif cards and name in _WAITING:
        waits[_asked_by()] += 1


def _asked_by() -> str:
    """The innermost line of the two packages or of a notebook's cell."""
    frame: Any = sys._getframe(1)
    while frame:
        file = frame.f_code.co_filename
        for package in ("kdas_core/", "kdas_book/", "<cell"):
            if package in file:
                return f"{package}{file.partition(package)[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def _wrapped(func: Any, args: tuple, kwargs: dict, out: Any) -> Any:
    """Results as cards; of an operation in place the very argument that it changed."""
    names = [argument.name for argument in func._schema.arguments]
    by_name = dict(zip(names, args)) | kwargs
    changed = {
        frozenset(argument.alias_info.before_set): by_name.get(argument.name)
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    }
    returns = func._schema.returns
    single = not isinstance(out, (tuple, list)) or len(returns) != len(out)
    results = []
    for result, about in zip([out] if single else out, returns):
        alias = about.alias_info
        in_place = (
            changed.get(frozenset(alias.before_set))
            if alias is not None and alias.is_write
            else None
        )
        is_view = alias is not None and not alias.is_write
        results.append(_as_cards(result, cards_of(args), is_view) if in_place is None else in_place)
    if single:
        return results[0] if results else None
    return tuple(results)


def cards_of(args: tuple) -> list[Card]:
    return [x for x in _leaves(args) if isinstance(x, Card)]


def _as_cards(result: Any, of: list[Card], is_view: bool) -> Any:
    # In inference mode a view of an ordinary tensor is an ordinary tensor.
    ordinary = is_view and not any(card.is_inference() for card in of)
    with torch.inference_mode(torch.is_inference_mode_enabled() and not ordinary):
        return _mapped(
            lambda x: Card(x) if isinstance(x, torch.Tensor) and not isinstance(x, Card) else x,
            result,
        )


class _OnHost(TorchDispatchMode):
    """Operations of the host that make something on the card."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(map(_is_card, _leaves((args, kwargs)))):
            return _run(func, args, kwargs)
        return func(*args, **kwargs)


_LOWER = {
    F.conv1d,
    F.conv2d,
    F.linear,
    torch.matmul,
    torch.bmm,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
}
_FLOAT32 = {
    torch.softmax,
    F.softmax,
    F.log_softmax,
    F.layer_norm,
    F.binary_cross_entropy_with_logits,
    F.mse_loss,
    torch.sum,
}
_FLOAT32 |= {
    torch.log_softmax,
    torch.exp,
    torch.log,
    torch.Tensor.sum,
    torch.Tensor.softmax,
    torch.Tensor.exp,
    torch.Tensor.log,
}


def _is_small_float(x: Any) -> bool:
    return isinstance(x, Card) and x.dtype in (torch.float32, torch.float16, torch.bfloat16)


class _Autocast(TorchFunctionMode):
    """What autocast does on a GPU to the operations that this project has."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if (func in _LOWER or func in _FLOAT32) and torch.is_autocast_enabled("cuda"):
            kind = torch.get_autocast_dtype("cuda") if func in _LOWER else torch.float32
            args, kwargs = _mapped(
                lambda x: x.to(kind) if _is_small_float(x) else x, (args, kwargs)
            )
        if func is F.scaled_dot_product_attention:  # its choice of a kernel asks the driver
            query, key, value = args
            return (
                torch.softmax(query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5, dim=-1)
                @ value
            )
        return func(*args, **kwargs)


_STATE = torch.zeros(16, dtype=torch.uint8)  # of the card's random numbers
_CUDA: dict[str, Any] = {
    "_lazy_init": None,
    "current_device": 0,
    "device_count": 1,
    "empty_cache": None,
    "get_device_capability": (7, 5),
    "get_device_name": "pretended card",
    "get_rng_state": _STATE,
    "get_rng_state_all": [_STATE],
    "is_available": True,
    "is_bf16_supported": True,
    "is_current_stream_capturing": False,
    "is_initialized": True,
    "manual_seed": None,
    "manual_seed_all": None,
    "max_memory_allocated": 0,
    "memory_allocated": 0,
    "set_device": None,
    "set_rng_state": None,
    "set_rng_state_all": None,
    "synchronize": None,
}


def install() -> None:
    """From here on, and until it ends, this process has a card."""
    torch._C._ensureCUDADeviceGuardSet()
    getattr(backend_registration, _SETUP)("pretended")
    torch._C._set_only_lift_cpu_tensors(
        True
    )  # torch.tensor(1.0, device="cuda") comes from the host
    torch.backends.cudnn.enabled = False  # its batch norm is an operation of its own
    for name, answer in _CUDA.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    _foreach_supported_types.append(Card)
    torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[method-assign]
    _OnHost().__enter__()
    _Autocast().__enter__()
    submit = ThreadPoolExecutor.submit  # modes belong to a thread, so each gets them
    ThreadPoolExecutor.submit = lambda pool, *call, **how: submit(  # type: ignore[method-assign]
        pool, _with_modes, *call, **how
    )


def _with_modes(call: Callable, *args: Any, **kwargs: Any) -> Any:
    with _OnHost(), _Autocast():
        return call(*args, **kwargs)


@contextmanager
def counted() -> Iterator[tuple[Counter[str], Counter[str]]]:
    """Inside, uploads and waits are counted from 0."""
    uploads.clear()
    waits.clear()
    yield uploads, waits
