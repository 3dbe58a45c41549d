"""Facts read off single statements of a template are those of the whole template."""

import jinja2
import pytest

from tests.assets import chat_templates
from tests.template_corpus import Judge
from vlmcollate import ConfigError, collator_for
from vlmcollate.prompt import template_syntax
from vlmcollate.prompt.template_syntax import (
    literals_of,
    literals_with,
    prompt_is_constant,
    quoted_strings,
    switches_of,
)
from vlmcollate.testing import tiny_processor

HARD = {
    "braces and quotes": "{{ {'a': {'b-c': x == '}}-'}} }}{% if '%}' in y %}{% endif %}",
    "joined strings": "{% if m.content == '<a' 'b>' %}{% endif %}{{ raise('It is ' \"wrong.\") }}",
    "escapes": "{% if '\\u003cthink>' in m %}{% endif %}{{ 'it\\'s'|f }}",
    "raw": "{% raw %}{{ '<x>' == '<y>' }}{% endraw %}{{ '<z>' | trim }}",
    "comments": "{# {{ f('<x>') }} #}{{ '<z>'|trim }}",
    "an elif": "{% if messages %}{% elif add_generation_prompt %}{{ x }}{% else %}{{ y }}"
    "{% endif %}",
    "a loop's else": "{% for m in messages %}{% if add_generation_prompt %}{% for i in j %}{{ i }}"
    "{% else %}{{ z }}{% endfor %}{% endif %}{% endfor %}",
    "a block": "{% set add %}{{ '<x>' ~ f('<y>') }}{% endset %}{{ add if add_generation_prompt }}",
    "a macro": "{% macro f(thinking=false) %}{{ thinking }}{% endmacro %}"
    "{% if add_generation_prompt and not thinking %}<think>{% endif %}",
    "a bound name": "{% set a, b = 1, 2 %}{% set ns.c = 3 %}{{ b if add_generation_prompt }}",
    "an attribute": "{% set ns.c = 3 %}{{ c if add_generation_prompt }}{{ m.enable_thinking }}",
    "an unknown tag": "{% import 'x' as thinking %}{{ '<a>'|f if add_generation_prompt }}",
}


def facts(template):
    for read in (
        literals_of,
        prompt_is_constant,
        switches_of,
        quoted_strings,
        template_syntax.tested_literals,
    ):
        read.cache_clear()
    literals = literals_of(template)
    some = [word for literal in literals for word in (literal, literal[:2])]
    chosen = {word: literals_with(template, [word]) for word in some}
    return literals, prompt_is_constant(template), switches_of(template), chosen


@pytest.mark.parametrize(
    "template", [*HARD.values(), *chat_templates("templates").values()], ids=lambda text: text[:20]
)
def test_statements_show_what_the_whole_template_does(template, monkeypatch):
    found, quoted = facts(template), quoted_strings(template)
    assert all(any(string in literal for string in quoted) for literal in found[0])
    monkeypatch.setattr(template_syntax, "_statements", lambda _: None)
    assert facts(template) == found
    monkeypatch.undo()
    facts(template)


@pytest.mark.parametrize(
    ("name", "most"), [("llama3_2", 32), ("qwen3", 35), ("gptoss", 36), ("gemma4", 32)]
)
def test_a_plain_chat_needs_few_renderings(name, most, monkeypatch):
    collator = Judge(chat_templates("templates")[name] + "{# not seen before #}").collator
    rendered, begin = [], jinja2.Template.new_context

    def counted(self, given, **options):
        rendered.append(repr({k: v for k, v in given.items() if k not in self.globals}))
        return begin(self, given, **options)

    monkeypatch.setattr(jinja2.Template, "new_context", counted)
    collator.encode([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
    # transformers writes reasoning under all its names, so that two of these chats are the same
    assert len(rendered) <= len(set(rendered)) + 1
    assert len(rendered) <= most


@pytest.mark.parametrize("name", ["nemotron_3_nano", "llama3_2", "qwen3"])
def test_a_long_chat_of_a_known_template_is_rendered_twice(name, monkeypatch):
    collator = Judge(chat_templates("templates")[name]).collator

    def chat(turns):
        words = (f"word{k}" for k in range(2 * turns))
        roles = ("user", "assistant") * turns
        return [{"role": r, "content": w} for r, w in zip(roles, words, strict=True)]

    collator.encode(chat(3))
    collator.renderer._plans.clear()
    rendered, begin = [], jinja2.Template.new_context

    def counted(self, given, **options):
        rendered.append(len(given["messages"]))
        return begin(self, given, **options)

    monkeypatch.setattr(jinja2.Template, "new_context", counted)
    collator.encode(chat(20))
    assert rendered == [40, 40]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
@pytest.mark.parametrize("call", ["encode", "prompt", "token_count"])
def test_a_syntax_error_names_its_line(family, call):
    processor = tiny_processor(family)
    processor.chat_template = "{% for m in messages %}\n{{ m.content }}\n{% if %}{% endfor %}"
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    with pytest.raises(ConfigError, match="syntax error in line 3: Expected an expression, got"):
        getattr(collator_for(processor), call)(chat)
