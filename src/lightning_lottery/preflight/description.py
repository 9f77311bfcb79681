"""What a value is, in words that are the same in every process: to tell whether two runs are the same."""

import functools
import hashlib
import re
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What the contents of a function or a tensor add to its name; folders of older versions are without it.
_CONTENTS = re.compile(r", (code|bits) [0-9a-f]{8}")
_SIMPLE = (bool, int, float, complex, str, bytes, type(None), FunctionType, np.generic)
_DEPTH = 8  # how deep values inside values are looked at


def described(value: Any, depth: int = _DEPTH) -> str:
    """Describes a value.

    Args:
        value: Anything. Functions are told apart by their code and what they hold, tensors and arrays by their
            bits, callable objects by the numbers, strings and functions among their attributes, unless their class
            says how they are shown.
        depth: How deep to look into values inside values.

    Returns:
        Its ``repr`` as far as that goes, without addresses in memory, and sets in order.
    """
    value = value.item() if isinstance(value, np.generic) else value
    inside = functools.partial(described, depth=depth - 1)
    if depth == 0:
        return _without_address(value)
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(inside, value))) + "}"
    if type(value) in (list, tuple):
        items = ", ".join(map(inside, value))
        return f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"
    if type(value) is dict:
        return "{" + ", ".join(f"{inside(key)}: {inside(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (np.ndarray, Tensor)):
        return f"{value!r}, bits {_fingerprint(value)}"
    if isinstance(value, FunctionType):
        return f"<function {value.__qualname__}>, code {_fingerprint_of_function(value, depth)}"
    if isinstance(value, MethodType):
        return f"<bound method {value.__func__.__qualname__} of {inside(value.__self__)}>"
    if isinstance(value, functools.partial):
        named = [f"{key}={inside(item)}" for key, item in value.keywords.items()]
        return f"functools.partial({', '.join([inside(value.func), *map(inside, value.args), *named])})"
    if is_dataclass(value) and hasattr(type(value).__repr__, "__wrapped__"):  # one that dataclass has made
        shown = [f"{f.name}={inside(getattr(value, f.name))}" for f in fields(value) if f.repr]
        return f"{type(value).__qualname__}({', '.join(shown)})"
    if callable(value) and _has_no_repr(type(value)):  # of others, attributes may count what happens
        # What else it holds may be large, or lead back to it.
        own = {name: item for name, item in getattr(value, "__dict__", {}).items() if isinstance(item, _SIMPLE)}
        return f"{_without_address(value)}{inside(own) if own else ''}"
    return _without_address(value)


def alike(then: object, now: object) -> bool:
    """Whether two descriptions say the same; older ones know no contents of functions and tensors."""
    if then == now:
        return True
    if isinstance(then, list) and isinstance(now, list):
        return len(then) == len(now) and all(map(alike, then, now))
    if isinstance(then, dict) and isinstance(now, dict):
        return then.keys() == now.keys() and all(alike(then[name], now[name]) for name in now)
    if not (isinstance(then, str) and isinstance(now, str)) or _CONTENTS.search(then):
        return False
    return then == _CONTENTS.sub("", now)


def _has_no_repr(kind: type) -> bool:
    return all("__repr__" not in vars(base) for base in kind.__mro__[:-1])


def _without_address(value: object) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _fingerprint(value: "np.ndarray[Any, Any] | Tensor") -> str:
    if isinstance(value, Tensor):
        dense = value.detach().cpu()
        dense = (dense if dense.layout == torch.strided else dense.to_dense()).contiguous().flatten()
        content = dense.view(torch.uint8).numpy().tobytes() if dense.numel() else b""
    else:
        content = value.tobytes()
    return _hash(content)


def _fingerprint_of_function(function: FunctionType, depth: int) -> str:
    held = []
    for cell in function.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not set yet
            held.append(None)
    held += [function.__defaults__, function.__kwdefaults__]
    return _hash("\n".join([_code(function.__code__), *(described(v, depth - 1) for v in held)]).encode())


def _code(code: CodeType) -> str:
    """What a function does, wherever it stands: without names of files and numbers of lines."""
    constants = [_code(c) if isinstance(c, CodeType) else described(c) for c in code.co_consts]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, constants))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]
