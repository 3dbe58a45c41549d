"""Rows as public projects document them: under `format="auto"`, and with the format stated.

What is refused or reported under `"auto"` is read as the option of the second column states.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from PIL import Image

from tests.processors import processor_of
from vlmcollate import collator_for
from vlmcollate.conversation import TextPart
from vlmcollate.errors import ConversationError, UnreadKeyWarning
from vlmcollate.formats import MessagesFormat, read_example

IMAGE = Image.new("RGB", (28, 28))
USER, ANSWER = {"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cat."}
TAGGED = {"role": "user", "content": "<image>What?"}
CALL = {"name": "look", "arguments": {"at": "it"}}
PLAIN = ["user What?", "assistant A cat."]
SEEN = ["user <image>What?", "assistant A cat."]
UNTRAINED = ["user What?", "assistant=0 A cat."]


def shown(conversation) -> list[str]:
    """Each message as its role, its weight if that is not 1, and its content."""
    lines = []
    for message in conversation.messages:
        weight = f"={message.weight:g}" if message.is_assistant and message.weight != 1 else ""
        parts = (p.text if isinstance(p, TextPart) else f"<{p.kind}>" for p in message.content)
        calls = [call["function"] for call in message.extra.get("tool_calls", [])]
        reasoning = message.extra.get("reasoning_content", "")
        lines.append(f"{message.role}{weight} {reasoning}{''.join(parts)}{calls or ''}")
    return lines


def calling(**fields: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", **fields}]}


def with_media(**columns: Any) -> dict[str, Any]:
    return {"messages": [USER, ANSWER], **columns}


def flagged(key: str, value: Any) -> dict[str, Any]:
    return {"messages": [USER, {**ANSWER, key: value}]}


def part(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [fields, "What?"]}, ANSWER]}


LLAVA = {
    "conversations": [
        {"from": "human", "value": "<image>What?"},
        {"from": "gpt", "value": "A cat."},
    ],
    "image": "a.jpg",
}
CALLED = ["user What?", f"assistant {[CALL]}"]
ROWS: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "llava": (LLAVA, {"format": "llava"}, SEEN),
    "tags": ({"messages": [TAGGED, ANSWER], "images": ["a.jpg"]}, {"format": "messages"}, SEEN),
    "images": (with_media(images=["a.jpg"]), {"format": "messages"}, SEEN),
    **{
        key: (with_media(**{key: "a.jpg"}), {"format": "messages"}, SEEN)
        for key in ("image", "image_path", "imgs")
    },
    "video": (
        with_media(video="a.mp4"),
        {"format": "messages"},
        ["user <video>What?", "assistant A cat."],
    ),
    "audio": (
        with_media(audio="a.wav"),
        {"format": "messages"},
        ["user <audio>What?", "assistant A cat."],
    ),
    "system": (with_media(system="Be kind."), {"format": "messages"}, ["system Be kind.", *PLAIN]),
    **{
        f"{key}: {value}": (flagged(key, value), {"format": "messages"}, UNTRAINED)
        for key, value in {
            "loss": False,
            "loss_scale": 0,
            "loss_weight": 0,
            "loss_mask": 0,
            "training": False,
            "trainable": False,
        }.items()
    },
    "function_call": (
        {"messages": [USER, {"role": "function_call", "content": json.dumps(CALL)}]},
        {"format": "messages"},
        CALLED,
    ),
    "tool_call": (
        {"messages": [USER, {"role": "tool_call", "content": json.dumps(CALL)}]},
        {"format": "messages"},
        CALLED,
    ),
    "model": (
        {"messages": [USER, {"role": "model", "content": "A cat."}]},
        {"format": "messages"},
        PLAIN,
    ),
    "gpt": (
        {"messages": [USER, {"role": "gpt", "content": "A cat."}]},
        {"format": "messages"},
        PLAIN,
    ),
    "observation": (
        {
            "messages": [
                *calling(tool_calls=[CALL])["messages"],
                {"role": "observation", "content": "4"},
            ]
        },
        {"format": "messages"},
        [*CALLED, "tool 4"],
    ),
    "legacy function_call": (
        calling(content=None, function_call=CALL),
        {"format": "messages"},
        CALLED,
    ),
    "prefix": (
        {"messages": [USER, {**ANSWER, "prefix": True}]},
        {"format": "messages"},
        ["user What?", "assistant=0 A cat."],
    ),
    "arguments in JSON": (
        calling(tool_calls=[{"name": "look", "arguments": '{"at": "it"}'}]),
        {"format": MessagesFormat(keep_none_arguments=True)},
        CALLED,
    ),
    "messages in JSON": ({"messages": json.dumps([USER, ANSWER])}, {"format": "messages"}, PLAIN),
    "items in JSON": ({"messages": [json.dumps(USER), ANSWER]}, {"format": "messages"}, PLAIN),
    "index and cache_control": (
        {**part(type="image", index=0, cache_control={"type": "ephemeral"}), "images": [IMAGE]},
        {"on_unread": "raise"},
        SEEN,
    ),
    "alpaca": ({"instruction": "What?", "output": "A cat."}, {"format": "alpaca"}, PLAIN),
    "query": ({"query": "What?", "response": "A cat."}, {"format": "query_response"}, PLAIN),
    "question": ({"question": "What?", "answer": "A cat."}, {"format": "question_answer"}, PLAIN),
    "prefix and suffix": (
        {"prefix": "What?", "suffix": "A cat.", "image": IMAGE},
        {"format": "prefix_suffix"},
        SEEN,
    ),
    "input_text": (part(type="input_text", text=""), {"format": "messages"}, PLAIN),
    "output_text": (
        {"messages": [USER, {**ANSWER, "content": [{"type": "output_text", "text": "A cat."}]}]},
        {"format": "messages"},
        PLAIN,
    ),
    "input_image": (part(type="input_image", image_url="a.jpg"), {"format": "messages"}, SEEN),
    "input_audio": (
        part(type="input_audio", input_audio={"data": "UklG", "format": "wav"}),
        {"format": "messages"},
        ["user <audio>What?", "assistant A cat."],
    ),
    "items of the responses API": (
        {
            "messages": [
                USER,
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]},
                {
                    "type": "function_call",
                    "call_id": "c",
                    "name": "look",
                    "arguments": '{"at": "it"}',
                },
                {"type": "function_call_output", "call_id": "c", "output": {"seen": 4}},
            ]
        },
        {"format": "messages"},
        ["user What?", f"assistant so{[CALL]}", 'tool {"seen": 4}'],
    ),
    "a block of the Anthropic API": (
        part(type="image", source={"type": "base64", "media_type": "image/png", "data": "iVBO"}),
        {"format": "messages"},
        SEEN,
    ),
    "thinking": (
        {
            "messages": [
                USER,
                {**ANSWER, "content": [{"type": "thinking", "thinking": "so"}, "Yes"]},
            ]
        },
        {"format": "messages"},
        ["user What?", "assistant soYes"],
    ),
}


@pytest.mark.parametrize(("row", "options", "expected"), ROWS.values(), ids=ROWS)
def test_a_public_row_is_read_alike_under_auto_and_when_it_is_stated(row, options, expected):
    assert shown(read_example(row)) == expected
    assert shown(read_example(row, **options)) == expected


@pytest.mark.parametrize(("row", "options", "expected"), ROWS.values(), ids=ROWS)
def test_a_public_row_comes_back_the_same_from_pandas(row, options, expected):
    pandas = pytest.importorskip("pandas")
    (back,) = pandas.DataFrame([row]).to_dict("records")
    assert shown(read_example(back, **options)) == expected


OTHERWISE: dict[str, tuple[Any, str, dict[str, Any], list[str]]] = {
    "text": ({"text": "A cat."}, "not a conversation", {"format": "text"}, ["text A cat."]),
    "preferences": (
        {"messages": [USER, ANSWER], "rejected": [ANSWER, USER, {**ANSWER, "content": "A dog."}]},
        "rejected: .*holds messages",
        {"on_unread": "allow"},
        PLAIN,
    ),
    "a mask beside the messages": (
        {"messages": [USER, ANSWER], "loss_mask": [0, 1]},
        "holds a mask",
        {"on_unread": "allow"},
        PLAIN,
    ),
    "objects": (
        {"messages": [USER, ANSWER], "objects": {"bbox": [[1, 2, 3, 4]]}},
        "objects of a grounding",
        {"on_unread": "allow"},
        PLAIN,
    ),
    "tools under another name": (
        {"messages": [USER, ANSWER], "available_tools": [{"name": "f"}]},
        "holds tools",
        {"on_unread": "allow"},
        PLAIN,
    ),
}


@pytest.mark.parametrize(
    ("row", "problem", "options", "expected"), OTHERWISE.values(), ids=OTHERWISE
)
def test_what_auto_refuses_is_read_as_the_options_state(row, problem, options, expected):
    with pytest.raises(ConversationError, match=problem):
        read_example(row)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shown(read_example(row, **options)) == expected


def test_a_stated_format_settles_which_of_two_readings_is_meant():
    row = {"messages": [USER, ANSWER], "question": "Why?", "answer": "So."}
    with pytest.raises(ConversationError, match="two readings: as 'messages', and as 'question_an"):
        read_example(row)
    with pytest.warns(UnreadKeyWarning, match="nothing reads the key 'messages'"):
        read = read_example(row, "question_answer")
    assert shown(read) == ["user Why?", "assistant So."]
    with pytest.raises(ConversationError, match="nothing reads the key 'messages'"):
        read_example(row, "question_answer", on_unread="raise")
    with pytest.warns(UnreadKeyWarning) as caught:
        assert shown(read_example(row, "messages")) == PLAIN
    assert len(caught) == 2


def test_a_misspelled_role_is_an_error_a_warning_or_allowed():
    row = [USER, {"role": "asistant", "content": "a"}, USER, ANSWER]
    processor = processor_of("qwen2_5_vl")
    for policy in ("auto", "raise"):
        with pytest.raises(ConversationError, match="did you mean 'assistant'"):
            collator_for(processor, on_unread=policy).encode(row)
    with pytest.warns(UnreadKeyWarning, match="did you mean 'assistant'"):
        warned = collator_for(processor, on_unread="warn").encode(row)
    allowed = collator_for(processor, on_unread="allow").encode(row)
    assert warned.labels.tolist() == allowed.labels.tolist()


def test_a_prefix_is_not_trained_and_has_no_end():
    collator = collator_for(processor_of("qwen2_5_vl"), require_labels=False)
    sample = collator.encode([USER, {**ANSWER, "prefix": True}])
    assert (sample.labels == -100).all()
    assert collator.processor.tokenizer.decode(sample.input_ids).endswith("assistant\nA cat.")


def test_functions_beside_the_messages_are_tools():
    row = {"messages": [USER, ANSWER], "functions": [{"name": "look"}]}
    for name in ("auto", "messages"):
        assert read_example(row, name).tools == [{"name": "look"}]


ASKED, ANSWERED = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


@pytest.mark.parametrize(
    "objects", [{"ref": [], "bbox": []}, {"ref": None, "bbox": []}, {"bbox": [[]]}, {}, []]
)
def test_objects_that_arrow_filled_in_are_no_objects(objects):
    row = {"messages": [ASKED, ANSWERED], "objects": objects}
    assert not read_example(row, on_unread="raise").unread
    objects = {"ref": [], "bbox": [[1, 2, 3, 4]]}
    with pytest.raises(ConversationError, match="holds objects of a grounding task"):
        read_example({**row, "objects": objects})


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"conversations": [{"user": "Hi"}, {"assistant": "Hello"}]},
            r"conversations\[0\]: a message has no role: found the keys \['user'\], expected",
        ),
        (
            [ASKED, {"role": "assistant", "contnet": "Hello"}],
            r"messages\[1\].content: the message has no content beside the keys \['contnet'\]; add",
        ),
        (None, "found None, expected a list of messages or a dict; drop it"),
        (
            {"messages": [{"role": "system", "content": "A"}, ANSWERED], "system_prompt": "B"},
            "system_prompt: differs from the system message",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"uri": "a"}}]}],
            r"content\[0\].image_url: expected a dict with 'url' or 'data', found one with",
        ),
    ],
)
def test_an_error_names_the_keys_that_were_found(row, problem):
    with pytest.raises(ConversationError, match=problem):
        read_example(row)


def test_an_empty_system_prompt_leaves_the_other_column_to_be_read():
    row = {"messages": [ASKED, ANSWERED], "system": "", "system_prompt": "Be brief."}
    assert read_example(row).messages[0].text == "Be brief."


def test_a_table_of_rows_names_the_way_to_one():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ConversationError, match=r"found a DataFrame, expected one row; pass the"):
        read_example(pandas.DataFrame([{"messages": [ASKED, ANSWERED]}]))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "a.png", "detail": "low", "crop": "left"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav", "crop": "1"}},
    ],
)
def test_a_key_beside_an_address_is_reported(part):
    row = [{"role": "user", "content": [part]}, ANSWERED]
    with pytest.warns(UnreadKeyWarning, match="nothing reads the key 'crop'"):
        read_example(row)
    del part[part["type"]]["crop"]
    part[part["type"]]["loss"] = 0
    with pytest.raises(ConversationError, match=r"content\[0\]\..*\.loss: .* holds a mask"):
        read_example(row, on_unread="auto")


def test_a_file_name_is_metadata_only_beside_media():
    # metadata.jsonl of an image folder, read without the images
    row = {"file_name": "0001.jpg", "messages": [ASKED, ANSWERED], "source": "web", "url": "a.html"}
    with pytest.warns(UnreadKeyWarning, match="nothing reads the key 'file_name'"):
        read_example(row)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_example({**row, "image": "0001.jpg"}, on_unread="raise").unread == {}
