"""What a template's source shows about its generation prompts is true of its renderings."""

from __future__ import annotations

import jinja2
import pytest

from vlmcollate.prompt.template_syntax import is_of_prompts, other_switches_of, prompt_is_constant
from vlmcollate.prompt.varying_names import varying_names

LOOP = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
ASKS = "add_generation_prompt"
PROMPT = "{% if add_generation_prompt %}[assistant]{% if x %}<think>{% endif %}{% endif %}"
SYSTEM = "messages[0].role == 'system'"
DEFAULT = "{% set x = x if x is defined else true %}"
CONSTANT = {
    "a variable": LOOP + PROMPT,
    "a default": DEFAULT + LOOP + PROMPT,
    "a default behind a test": "{% if x is not defined %}{% set x = false %}{% endif %}"
    + LOOP
    + PROMPT,
    "a name for it": DEFAULT + "{% set y = {'x': x} %}" + LOOP + PROMPT.replace("if x", "if y.x"),
    "tests that only other chats reach": LOOP
    + f"{{% if {ASKS} %}}[assistant]{{% elif {SYSTEM} %}}a{{% endif %}}"
    + f"{{% if {SYSTEM} and not {ASKS} %}}a{{% else %}}<think>{{% endif %}}",
    "no request": f"{{% if not {ASKS} is defined %}}{{% set {ASKS} = false %}}{{% endif %}}"
    + LOOP
    + PROMPT,
}
VARYING = {
    "an attribute": "{% set ns = namespace(x=false) %}"
    + LOOP.replace("{% endfor %}", "{% set ns.x = m.content %}{% endfor %}")
    + PROMPT.replace("if x", "if ns.x"),
    "a message": "{% set x = messages[0].content == 'a' %}" + LOOP + PROMPT,
    "another name": "{% set y = messages %}{% set x = y[0].content == 'a' %}" + LOOP + PROMPT,
    "a test": "{% if messages[0].content == 'a' %}{% set x = true %}{% endif %}" + LOOP + PROMPT,
    "a macro": "{% macro f() %}{{ messages[0].content }}{% endmacro %}{% set x = f() == 'a' %}"
    + LOOP
    + PROMPT,
    "a block": "{% set x %}{{ messages[0].content }}{% endset %}" + LOOP + PROMPT,
    "words": LOOP + PROMPT.replace("if x", "if messages[-1].content == 'a'"),
    "tools": LOOP + PROMPT.replace("if x", "if tools"),
    "what is written if none is asked": LOOP
    + f"{{% if not {ASKS} and {SYSTEM} %}}{{% elif {SYSTEM} %}}<think>{{% else %}}a{{% endif %}}",
    "what is written whenever one is asked": LOOP
    + f"{{% if {ASKS} or {SYSTEM} %}}[assistant]{{{{ messages[0].content }}}}{{% endif %}}",
    "what is written unless none is asked": LOOP
    + f"{{% if {SYSTEM} and not {ASKS} %}}a{{% else %}}{{{{ messages[0].content }}}}{{% endif %}}",
    "another list": f"{{% if {SYSTEM} %}}{{% set messages = messages[1:] %}}{{% endif %}}"
    + LOOP
    + PROMPT.replace("if x", "if messages[-1].role == 'user'"),
    "an alias": "{% set ns = namespace(x=false) %}{% set alias = ns %}{% set alias.x = "
    + SYSTEM
    + " %}"
    + LOOP
    + PROMPT.replace("if x", "if ns.x"),
    "a cycle": "{% set c = cycler(1, 0) %}" + LOOP + PROMPT.replace("if x", "if c.next()"),
    "an outer test": LOOP + f"{{% if {SYSTEM} %}}{PROMPT}{{% endif %}}",
    "an outer loop": LOOP + f"{{% for m in messages if m.role == 'user' %}}{PROMPT}{{% endfor %}}",
    "an outer expression": LOOP + f"{{{{ ('a' if {ASKS} else '') if {SYSTEM} }}}}",
    "a filter": LOOP + f"{{% filter replace('a', messages[0].content) %}}{PROMPT}{{% endfilter %}}",
    "a macro in it": f"{{% macro p() %}}{{{{ {SYSTEM} }}}}{{% endmacro %}}"
    + LOOP
    + PROMPT.replace("<think>", "{{ p() }}"),
    "a name of its own": f"{{% set asks = {ASKS} %}}" + LOOP + PROMPT.replace(ASKS, "asks"),
    "a prompt that is always written": LOOP
    + f"{{% if messages[-1].role != 'assistant' %}}[assistant]{{% if {SYSTEM} %}}<think>"
    + "{% endif %}{% endif %}",
    "what is written behind a prompt": LOOP
    + PROMPT
    + f"{{% if {SYSTEM} and messages[-1].role != 'assistant' %}}<think>{{% endif %}}",
    "a request of its own that is false": f"{{% set {ASKS} = kw | default(false) %}}{LOOP}"
    + f"{{% if not {ASKS} %}}[assistant]{{% if {SYSTEM} %}}<think>{{% endif %}}{{% endif %}}",
    "a macro for the prompt": f"{{% if {ASKS} %}}{{% macro p() %}}[assistant]{{% endmacro %}}"
    + f"{{% endif %}}{LOOP}{{% if {SYSTEM} %}}{{{{ p() if p is defined }}}}{{% endif %}}",
    "a name for the prompt": f"{{% if {ASKS} %}}{{% set p = '[assistant]' %}}{{% endif %}}{LOOP}"
    + f"{{% if {SYSTEM} %}}{{{{ p }}}}{{% endif %}}",
    "an attribute for the prompt": "{% set ns = namespace(p='') %}"
    + f"{{% if {ASKS} %}}{{% set ns.p = '[assistant]' %}}{{% endif %}}{LOOP}"
    + f"{{% if {SYSTEM} %}}{{{{ ns.p }}}}{{% endif %}}",
    "its own request": f"{{% if {SYSTEM} %}}{{% set {ASKS} = 1 %}}{{% endif %}}{LOOP}{PROMPT}",
}


def rendered(template: str, content: str, *, asks: bool, **variables: object) -> str:
    messages = [{"role": "user", "content": content}]
    variables = {"messages": messages, "tools": None, **variables}
    return str(jinja2.Template(template).render(add_generation_prompt=asks, **variables))


@pytest.mark.parametrize("template", CONSTANT.values(), ids=CONSTANT)
def test_a_prompt_of_variables_alone_is_constant(template: str) -> None:
    assert prompt_is_constant(template)
    prompts = {rendered(template, word, asks=True).partition(word)[2] for word in ("a", "b")}
    assert len(prompts) == 1


@pytest.mark.parametrize("template", VARYING.values(), ids=VARYING)
def test_a_prompt_that_may_depend_on_a_chat_is_not_constant(template: str) -> None:
    assert not prompt_is_constant(template)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (DEFAULT + LOOP + PROMPT, True),
        (LOOP + PROMPT.replace("add_generation_prompt", "add_generation_prompt and x"), True),
        (LOOP + "{{ '[assistant]' ~ x if add_generation_prompt }}", True),
        (DEFAULT + "{{ x }}" + LOOP + PROMPT, False),
        (DEFAULT + "{% set y = x %}{{ y }}" + LOOP + PROMPT, False),
        (LOOP + "{% if not add_generation_prompt %}{{ x }}{% endif %}", False),
        (LOOP + "{% if add_generation_prompt %}a{% else %}{{ x }}{% endif %}", False),
        (LOOP + "{% if add_generation_prompt or x %}a{% endif %}", False),
        (LOOP + "{{ 'a' if add_generation_prompt else x }}", False),
        ("{% set add_generation_prompt = true %}" + LOOP + PROMPT, False),
    ],
)
def test_a_variable_of_prompts_alone_changes_no_chat(template: str, expected: bool) -> None:
    assert is_of_prompts(template, "x") == expected
    texts = {rendered(template, "a", asks=False, x=x) for x in (False, True)}
    assert (len(texts) == 1) == expected


def test_names_that_are_bound_in_loops_vary() -> None:
    tree = jinja2.Environment().parse(  # noqa: S701  # it renders nothing
        "{% set a = 1 %}{% for b, c in d %}{% set e = a %}{% endfor %}{% with f = 1 %}{% endwith %}"
        "{% macro g(h) %}{% endmacro %}{% set i = a %}{% set j = e %}"
    )
    assert varying_names(tree) >= {"b", "c", "e", "f", "g", "h", "j"}
    assert varying_names(tree).isdisjoint({"a", "d", "i"})


SWITCHED = "{% if enable_thinking %}<think>{% endif %}" + LOOP


@pytest.mark.parametrize(
    ("beginning", "values"),
    [
        ("", [False, True]),
        ("{% set enable_thinking = enable_thinking | default(false) %}", [True]),
        ("{% set enable_thinking = enable_thinking | default(true, true) %}", [False]),
        ("{% set enable_thinking = enable_thinking | default(0) %}", [False, True]),
        ("{% set enable_thinking = other | default(false) %}", [False, True]),
        ("{% set enable_thinking = not (enable_thinking | default(false)) %}", [False, True]),
        ("{% set enable_thinking = (enable_thinking ~ '') | default(false) %}", [False, True]),
        ("{% set ns = namespace() %}{% set ns.a = 1 | default(false) %}", [False, True]),
        (
            "{{ enable_thinking is defined }}"
            "{% set enable_thinking = enable_thinking | default(false) %}",
            [False, True],
        ),
        (
            "{% if tools %}{% set enable_thinking = enable_thinking | default(false) %}{% endif %}",
            [False, True],
        ),
    ],
)
def test_the_value_that_a_missing_switch_has_is_no_other(beginning, values):
    template = beginning + SWITCHED + PROMPT
    assert [s["enable_thinking"] for s in other_switches_of(template)] == values
    for value in {False, True}.difference(values):
        missing = jinja2.Template(template).render(messages=[])
        assert jinja2.Template(template).render(messages=[], enable_thinking=value) == missing
