"""Descriptions of values, which distinguish runs."""

import functools
import importlib
import os
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_lottery import ConfigurationError, LotteryTicketCallback, Reinitialize
from lightning_lottery.pruning.criteria import criterion_of
from lightning_lottery.rules.description import alike, described
from tests.helpers.fits import Model, loaders, quiet_trainer
from tests.helpers.resuming import Stop

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(VALUES)
def test_plain_values_are_their_repr(value):
    assert described(value, depth=100) == repr(value)


def scaled(factor):
    return lambda weight: weight.abs() * factor


class Callable:
    def __init__(self, power):
        self.power = power

    def __call__(self, weight):
        return weight.abs() ** self.power

    def scores(self, weight):
        return self(weight)


@dataclass(frozen=True)
class Holder:
    function: object


DIFFERENT = [
    (lambda w: w.abs(), lambda w: -w.abs()),
    (lambda w: w * 2, lambda w: w * 3),
    (scaled(1), scaled(2)),
    (lambda w, p=1: w**p, lambda w, p=2: w**p),
    (functools.partial(scaled, 1), functools.partial(scaled, 2)),
    (Callable(1), Callable(2)),
    (Callable(1).scores, Callable(2).scores),
    (Holder(lambda w: w), Holder(lambda w: -w)),
    ([lambda w: w], [lambda w: -w]),
    ({"f": lambda w: w}, {"f": lambda w: -w}),
    (lambda w: (lambda v: v + 1)(w), lambda w: (lambda v: v + 2)(w)),
    (torch.arange(5000.0), torch.arange(5000.0) + (torch.arange(5000) == 2500)),
    (torch.tensor(0.1), torch.tensor(0.1 + 1e-7)),
    (np.arange(5000), np.flip(np.arange(5000))),
    ({3, 1, 2}, {3, 1, 4}),
]


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_different_things_are_described_differently(first, second):
    assert described(first) != described(second)
    assert " at 0x" not in described(first)
    assert described(first) == described(first)


def test_the_same_function_has_the_same_description_in_another_process(tmp_path, monkeypatch):
    letters = "{'b', 'a', 'c', 'e', 'd', 'g', 'f', 'h'}"
    (tmp_path / "mine.py").write_text(f"def f(x):\n    return lambda w: w * x if w in {letters} else w\n")
    script = (
        "import mine; from lightning_lottery.rules.description import described; "
        "print(described(mine.f(2)), described(mine.f))"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("mine")
    here = f"{described(mine.f(2))} {described(mine.f)}"
    assert other.stdout.strip() == here
    assert "<function f.<locals>.<lambda>>, code " in here


def test_cyclic_and_large_objects_can_be_described():
    class Knot:
        def __call__(self):
            pass

    knot = Knot()
    knot.self, knot.number, knot.many = knot, 3, [0] * 10**6
    assert described(knot).endswith("Knot object>{'number': 3}")
    loop = [1]
    loop.append(loop)
    assert described(loop, depth=4)
    assert described(OrderedDict(a=1)) == repr(OrderedDict(a=1))
    assert described(torch.sparse_coo_tensor([[0]], [1.0], (2,)))


def test_descriptions_of_older_versions_match_without_contents():
    new = described(criterion_of(lambda w: w.abs()))
    old = new.split(", code")[0] + new.split(", code")[1][9:]
    assert alike(old, new)
    assert not alike(old.replace("lambda", "f"), new)
    assert not alike(new, described(criterion_of(lambda w: -w.abs())))
    assert alike({"a": [old]}, {"a": [new]})
    assert not alike({"a": 1}, {"a": 1, "b": 2})


@pytest.mark.parametrize("argument", ["criterion", "controls"])
def test_a_run_is_not_resumed_with_another_function(digits, tmp_path, argument):
    def fit(function, *others, resume=True):
        values = {
            "criterion": lambda weight: function(weight),
            "controls": [Reinitialize(initialize=lambda module: [function(p.data) for p in module.parameters()])],
        }
        given = {argument: values[argument], "dirpath": tmp_path / "run"}
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False, **given)
        trainer = quiet_trainer(callbacks=[lottery, *others], max_epochs=1)
        trainer.fit(Model(), *loaders(digits), ckpt_path=lottery.resume(trainer) if resume else None)
        return lottery

    def first(weight):
        return weight.normal_()

    def second(weight):
        return weight.uniform_()

    with pytest.raises(ZeroDivisionError):
        fit(first, Stop(1), resume=False)
    with pytest.raises(ConfigurationError, match=r"cannot be resumed: .* was .* and is "):
        fit(second)
    assert len(fit(first).records) == (3 if argument == "controls" else 2)
