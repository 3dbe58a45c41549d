"""Templates see what they see in the sandbox of transformers, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import SandboxedEnvironment
from transformers.utils import chat_template_utils

from vlmcollate.prompt.direct import TEMPLATE_ERRORS
from vlmcollate.prompt.sandbox import writer_of

EXPRESSIONS = (
    "d.a",
    "d.nothing is defined",
    "d.nothing",
    "d.nothing.more",
    "d.items() | list",
    "d.keys",
    "d.get('a')",
    "d.clear()",
    "d.update",
    "d['a'] ~ d['pop']",
    "d.__class__",
    "d._private",
    "d | attr('__init__')",
    "d | attr('popitem')",
    "d | attr('copy')",
    "items.append(1)",
    "items.index(2)",
    "items[0].real",
    "items.__len__",
    "s.upper()",
    "s.format(1)",
    "d.__class__.mro()",
    "'{0.__class__}'.format(s)",
    "'{a}'.format_map(d)",
    "s.nothing",
    "n.x",
    "n.y",
    "n._x",
    "loop",
    "m(s)",
    "m.name",
    "m.__globals__",
    "range(3).start",
    "dict(a=1).a",
    "dict.fromkeys('ab')",
    "raise_exception(s)",
    "namespace",
    "unknown.a",
    "lipsum",
    "cycler(1, 2).next()",
)
DATA = {"d": {"a": 1, "_private": 2, "pop": 3}, "items": [2, 3], "s": "word", "messages": []}
HEAD = "{% set n = namespace(x=1) %}{% macro m(t) %}[{{ t }}]{% endmacro %}"


def _result(render, *args, **given):
    try:
        return render(*args, **given)
    except TEMPLATE_ERRORS as error:
        return type(error), str(error)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_expression_has_the_value_or_the_error_that_it_usually_has(expression):
    compiled = chat_template_utils._compile_jinja_template(f"{HEAD}{{{{ {expression} }}}}")
    usual = _result(compiled.render, **DATA)
    for _ in range(2):  # the second finds what the first asked
        assert _result(writer_of(compiled), DATA) == usual


@given(st.lists(st.sampled_from(EXPRESSIONS), min_size=2, max_size=6))
def test_what_one_expression_asked_changes_no_other(expressions):
    body = "".join(f"{{{{ {expression} }}}}|" for expression in expressions)
    compiled = chat_template_utils._compile_jinja_template(HEAD + body)
    assert _result(writer_of(compiled), DATA) == _result(compiled.render, **DATA)


def test_the_environment_of_transformers_stays_as_it_is():
    compiled = chat_template_utils._compile_jinja_template("{{ s.upper() }}")
    before = vars(compiled.environment).copy()
    assert writer_of(compiled)(DATA) == "WORD"
    assert vars(compiled.environment) == before
    compiled.environment.globals["s"] = "global"
    assert writer_of(compiled)({}) == compiled.render() == "GLOBAL"


def test_another_sandbox_serves_as_it_is():
    class Uncanny(SandboxedEnvironment):
        def is_safe_attribute(self, obj, attr, value):
            return value != 1

    class Value:
        a = 1

    compiled = Uncanny().from_string("{{ d.a is defined }}")
    assert writer_of(compiled)({"d": {"a": 1}}) == "True"
    assert writer_of(compiled)({"d": Value()}) == "False"
