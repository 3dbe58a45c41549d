"""Options of subclasses: each is a field that attrs knows, or the class is refused."""

import dataclasses
import pickle

import attrs
import pytest

from vlmcollate import ConfigError, LocalMedia, PadToLongest
from vlmcollate.extend import Concatenate, LabelStrategy
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.testing import tiny_processor

BASES = {
    "collator": (Qwen2_5_VLCollator, "max_length", 512),
    "join": (Concatenate, "rows", "sample"),
    "padding": (PadToLongest, "multiple_of", 8),
    "media": (LocalMedia, "root", None),
}


@pytest.mark.parametrize(("base", "name", "value"), BASES.values(), ids=BASES)
@pytest.mark.parametrize("decorate", [lambda c: c, attrs.frozen(kw_only=True, eq=False)])
def test_a_default_that_attrs_ignores_is_refused_where_it_stands(base, name, value, decorate):
    with pytest.raises(ConfigError, match=rf"Own sets the option '{name}' in its class body"):
        decorate(type("Own", (base,), {name: value}))


@pytest.mark.parametrize(("base", "name", "value"), BASES.values(), ids=BASES)
def test_an_annotated_default_without_the_decorator_is_refused(base, name, value):
    body = {name: value, "__annotations__": {name: object}, "load_image": None}
    own = type("Own", (base,), body)
    with pytest.raises(ConfigError, match=rf"Own sets the option '{name}'.*@attrs.frozen"):
        own() if base is not Qwen2_5_VLCollator else own(processor=tiny_processor())


def test_a_default_that_is_a_field_has_its_effect():
    @attrs.frozen(kw_only=True)
    class ByEight(PadToLongest):
        multiple_of: int = 8

    assert ByEight().padded_length([3]) == 8
    assert ByEight(multiple_of=4).padded_length([3]) == 4


@attrs.frozen
class _Decorated(LabelStrategy):
    name: str = "a"

    def find_turns(self, prompt, context):
        return []


@dataclasses.dataclass(frozen=True)
class _Dataclass(LabelStrategy):
    name: str = "a"

    def find_turns(self, prompt, context):
        return []


class _Ordinary(LabelStrategy):
    name: str

    def __init__(self, name="a"):
        self.name = name

    def find_turns(self, prompt, context):
        return []


@pytest.mark.parametrize("kind", [_Decorated, _Dataclass, _Ordinary])
def test_classes_that_know_their_options_are_instantiated_and_pickled(kind):
    assert pickle.loads(pickle.dumps(kind("b"))).name == "b"
    assert kind().name == "a"


def test_an_option_of_a_strategy_without_the_decorator_is_refused():
    class Undecorated(LabelStrategy):
        name: str = "a"

        def find_turns(self, prompt, context):
            return []

    with pytest.raises(ConfigError, match="adds the option 'name' without the attrs decorator"):
        Undecorated()
