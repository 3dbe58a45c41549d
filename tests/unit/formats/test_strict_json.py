"""A key that stands twice in an object of JSON is refused, wherever it stands."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmcollate.formats import strict_json
from vlmcollate.formats.strict_json import RepeatedKeyError, parse_json, parse_rows

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values, st.sampled_from([None, 1]))
def test_other_json_is_parsed_as_python_does(value, indent):
    text = json.dumps(value, indent=indent)
    assert parse_json(text) == json.loads(text)
    assert parse_rows(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "a"),
        ('{"a" : 1,\n"\\u0061":2}', "a"),
        ('{"": 1, "": 2}', ""),
        ('{"b": [0, {"x": {"c": {}, "c": []}}]}', "c"),
        ('{"a": {"b": 1, "b": 2}, "a": 3}', "b"),
    ],
)
def test_a_repeated_key_is_refused(text, key):
    with pytest.raises(RepeatedKeyError) as caught:
        parse_json(text)
    assert caught.value.key == key
    one, bad, empty = parse_rows(f'[{{"a": 1}}, {text}, []]')
    assert (one, empty) == ({"a": 1}, [])
    assert isinstance(bad, RepeatedKeyError)


@pytest.mark.parametrize("text", ["", "{", '{"a": 1} {"a": 1}', '{"a": 1,}', "[1,]", "\ufeff[]"])
def test_what_is_no_json_is_refused_as_by_python(text):
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    with pytest.raises(json.JSONDecodeError):
        parse_json(text)


def test_a_repeated_key_among_many_is_found_by_counting_each_once():
    compared = [0]

    class Key(str):
        __slots__ = ()

        def __eq__(self, other):
            compared[0] += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    pairs = [(Key(f"k{number}"), 0) for number in range(500)]
    found = strict_json._object_or_error([*pairs, (Key("k499"), 1)])
    assert isinstance(found, RepeatedKeyError)
    assert found.key == "k499"
    assert compared[0] < 5000  # each pair of keys would be 250,000
