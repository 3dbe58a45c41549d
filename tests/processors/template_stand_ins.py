"""Stand-ins for chat templates, spelled as the published ones render."""

from __future__ import annotations

PARTS = (
    "{{% for p in m.content %}}{{% if p.type == 'image' %}}{image}"
    "{{% elif p.type == 'video' %}}{video}{{% elif p.type == 'audio' %}}{audio}"
    "{{% else %}}{{{{ p.text }}}}{{% endif %}}{{% endfor %}}"
)


def chatml(image: str, video: str, audio: str) -> str:
    """Returns a chatml template with a text for each kind of media."""
    parts = PARTS.format(image=image, video=video, audio=audio)
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n" + parts + "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def turns(user: str, assistant: str, prompt: str, image: str, start: str = "") -> str:
    """Returns a template of turns; `{}` in `user` and `assistant` is replaced by the content."""
    parts = (
        "{% for p in m.content %}{% if p.type == 'image' %}" + image + "{% else %}{{ p.text }}"
        "{% endif %}{% endfor %}"
    )
    return (
        start
        + "{% for m in messages %}{% if m.role == 'assistant' %}"
        + assistant.replace("{}", parts)
        + "{% else %}"
        + user.replace("{}", parts)
        + "{% endif %}{% endfor %}{% if add_generation_prompt %}"
        + prompt
        + "{% endif %}"
    )
