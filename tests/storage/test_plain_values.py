"""States as plain values, and back."""

from collections import OrderedDict
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_lottery import ConfigurationError
from lightning_lottery.storage.plain_values import KEY, State, from_plain, to_plain


@dataclass(frozen=True)
class Inner:
    number: float
    name: str | None = None


@dataclass(frozen=True)
class Outer(State):
    inner: Inner
    many: list[Inner]
    named: dict[str, list[Inner]]
    maybe: Inner | None
    free: dict[str, Any]
    renamed: int = field(default=0, metadata={KEY: "_old_name"})


inners = st.builds(Inner, st.floats(allow_nan=False), st.none() | st.text())
outers = st.builds(
    Outer,
    inners,
    st.lists(inners),
    st.dictionaries(st.text(), st.lists(inners, max_size=2)),
    st.none() | inners,
    st.dictionaries(st.text(), st.integers() | st.tuples(st.integers()) | st.lists(st.text())),
    renamed=st.integers(),
)


@given(outers)
def test_a_state_survives_a_file_that_may_not_run_code(state):
    file = BytesIO()
    torch.save(to_plain(state), file)
    file.seek(0)
    assert from_plain(Outer, torch.load(file, weights_only=True), "the file", "stop") == state


def test_tensors_and_state_dicts_of_others_stay_the_same_objects():
    @dataclass(frozen=True)
    class Holder(State):
        tensor: Tensor
        free: dict[str, Any]

    inside = OrderedDict(a=Inner(1.0))
    state = Holder(torch.ones(3), {"module": inside})
    plain = to_plain(state)
    assert plain["tensor"] is state.tensor
    assert plain["free"]["module"] is inside, "a dataclass of somebody else is not ours to convert"


def test_keys_and_sequences_of_earlier_versions():
    plain = {
        "inner": (1.0, "a"),
        "many": [[2.0], {"number": 3.0}],
        "named": {},
        "maybe": None,
        "free": {},
        "_old_name": 7,
    }
    state = from_plain(Outer, plain, "the file", "stop")
    assert (state.inner, state.many, state.renamed) == (Inner(1.0, "a"), [Inner(2.0), Inner(3.0)], 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"foreign": 1},
            r"lightning-lottery 9.9.*unknown are \['foreign'\].*lightning-lottery==9.9.; or start a new run",
        ),
        ({"inner": 3}, "Inner is 3"),
        ({"inner": {"name": "a"}}, r"missing are \['number'\]"),
        ({"many": 3}, "not iterable"),
        ({"named": []}, "no attribute 'items'"),
    ],
)
def test_values_of_another_version_are_refused_with_its_number(changes, message):
    plain = to_plain(Outer(Inner(1.0), [], {}, None, {}, version="9.9"))
    with pytest.raises(ConfigurationError, match=r"^The checkpoint was written by.*" + message):
        from_plain(Outer, {**plain, **changes}, "The checkpoint", "start a new run")
    with pytest.raises(ConfigurationError, match="another version of lightning-lottery"):
        from_plain(Outer, None, "The checkpoint", "start a new run")
