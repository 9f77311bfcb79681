"""What all criteria, scopes, patterns, rewinding rules, controls and stop rules have in common."""

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

import lightning_lottery
from lightning_lottery.pruning.criteria import Function
from lightning_lottery.rules.description import described
from tests.helpers.contracts import BASES, concrete

INSTANCES = [instance for instances in BASES.values() for instance in instances]


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_every_subclass_has_an_instance_in_these_tests(base):
    assert concrete(base) - {Function} == {type(instance) for instance in BASES[base]}


@pytest.mark.parametrize("instance", INSTANCES, ids=repr)
def test_it_is_a_public_frozen_dataclass_with_a_docstring(instance):
    kind = type(instance)
    assert getattr(lightning_lottery, kind.__name__) is kind
    assert is_dataclass(kind)
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")  # dataclass writes such a docstring if there is none
    for field in fields(kind):
        with pytest.raises(FrozenInstanceError):
            setattr(instance, field.name, None)


@pytest.mark.parametrize("instance", INSTANCES, ids=repr)
def test_its_repr_makes_it_again_and_describes_it_in_every_process(instance):
    again = eval(repr(instance), vars(lightning_lottery).copy())
    assert again == instance
    for other in (again, copy.deepcopy(instance), pickle.loads(pickle.dumps(instance))):
        assert other == instance
        assert described(other) == described(instance)
