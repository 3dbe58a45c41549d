"""Every dataset format becomes the same conversation, and nothing of a row is ignored."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.processors import processor_of
from vlmcollate import ConfigError, collator_for
from vlmcollate.conversation import TextPart
from vlmcollate.errors import ConversationError, UnreadKeyWarning
from vlmcollate.formats import (
    DatasetFormat,
    LlavaFormat,
    MessagesFormat,
    read_example,
    register_format,
    registry,
)

IMAGE = Image.new("RGB", (4, 3))
USER, ANSWER = {"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cat."}
CALL = {"name": "look", "arguments": {"at": "it", "times": 2}}


def outline(conversation) -> list[tuple[Any, ...]]:
    """The role, weight and parts of each message, each part as its text or its kind."""
    return [
        (
            message.role,
            message.weight,
            *(p.text if isinstance(p, TextPart) else f"<{p.kind}>" for p in message.content),
        )
        for message in conversation.messages
    ]


PLAIN = [("user", 1.0, "What?"), ("assistant", 1.0, "A cat.")]
SEEN = [("user", 1.0, "<image>", "What?"), ("assistant", 1.0, "A cat.")]
ROWS: dict[str, tuple[Any, list[tuple[Any, ...]]]] = {
    "llava": (
        {
            "conversations": [
                {"from": "human", "value": "<image>\nWhat?"},
                {"from": "gpt", "value": "A cat."},
            ],
            "image": "a.jpg",
        },
        [("user", 1.0, "<image>", "\nWhat?"), ("assistant", 1.0, "A cat.")],
    ),
    "tags and images": (
        {"messages": [{**USER, "content": "<image>What?"}, ANSWER], "images": ["a.jpg"]},
        SEEN,
    ),
    "images without tags": ({"messages": [USER, ANSWER], "images": ["a.jpg"]}, SEEN),
    "one image": ({"messages": [USER, ANSWER], "image": IMAGE}, SEEN),
    "imgs": ({"messages": [USER, ANSWER], "imgs": [IMAGE]}, SEEN),
    "image_path": ({"messages": [USER, ANSWER], "image_path": "a.jpg"}, SEEN),
    "an image and its path": (
        {"messages": [USER, ANSWER], "image": IMAGE, "image_path": "a.jpg"},
        SEEN,
    ),
    "two tags": (
        {"messages": [{**USER, "content": "<image><image>"}, ANSWER], "images": [IMAGE, IMAGE]},
        [("user", 1.0, "<image>", "<image>"), ("assistant", 1.0, "A cat.")],
    ),
    "a video": (
        {"messages": [{**USER, "content": "<video>What?"}, ANSWER], "videos": ["a.mp4"]},
        [("user", 1.0, "<video>", "What?"), ("assistant", 1.0, "A cat.")],
    ),
    "a system column": (
        {"messages": [USER, ANSWER], "system": "Be kind."},
        [("system", 1.0, "Be kind."), *PLAIN],
    ),
    "prompt and completion": (
        {"prompt": "What?", "completion": "A cat."},
        [("user", 0.0, "What?"), ("assistant", 1.0, "A cat.")],
    ),
    "alpaca": (
        {"instruction": "What?", "input": "", "output": "A cat."},
        PLAIN,
    ),
    "alpaca with an input": (
        {"instruction": "What?", "input": "It purrs.", "output": "A cat.", "system": "Be kind."},
        [
            ("system", 1.0, "Be kind."),
            ("user", 1.0, "What?\nIt purrs."),
            ("assistant", 1.0, "A cat."),
        ],
    ),
    "query and response": (
        {"query": "What?", "response": "A cat.", "history": [["Hi", "Yo"]]},
        [("user", 1.0, "Hi"), ("assistant", 1.0, "Yo"), *PLAIN],
    ),
    "question and answer": ({"question": "What?", "answer": "A cat.", "image": IMAGE}, SEEN),
    "prefix and suffix": ({"prefix": "What?", "suffix": "A cat.", "image": IMAGE}, SEEN),
    "cauldron": (
        {"images": [IMAGE], "texts": [{"user": "What?", "assistant": "A cat.", "source": "x"}]},
        SEEN,
    ),
    "JSON": ({"messages": json.dumps([USER, ANSWER])}, PLAIN),
    "JSON items": ({"messages": [json.dumps(USER), json.dumps(ANSWER)]}, PLAIN),
    "responses": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": "https://a/b.png", "detail": "low"},
                    {"type": "input_text", "text": "What?"},
                ],
            },
            {"role": "assistant", "content": [{"type": "output_text", "text": "A cat."}]},
        ],
        SEEN,
    ),
    "roles of ShareGPT in messages": (
        [{"role": "human", "content": "What?"}, {"role": "gpt", "content": "A cat."}],
        PLAIN,
    ),
    "the words of another column": (
        {"messages": [USER, ANSWER], "prompt": "What?", "text": "A cat."},
        PLAIN,
    ),
    "a question of the conversation": (
        {"conversations": [USER, ANSWER], "question": "What?", "answer": "A cat."},
        PLAIN,
    ),
}


@pytest.mark.parametrize(("row", "expected"), ROWS.values(), ids=ROWS)
def test_rows_of_public_datasets_are_read(row, expected):
    assert outline(read_example(row)) == expected


@pytest.mark.parametrize(("row", "expected"), ROWS.values(), ids=ROWS)
def test_rows_come_back_the_same_from_pandas(row, expected):
    pandas = pytest.importorskip("pandas")
    if not isinstance(row, dict):
        row = {"messages": row}
    (back,) = pandas.DataFrame([row]).to_dict("records")
    assert outline(read_example(back)) == expected
    arrays = {k: np.array(v, object) if isinstance(v, list) else v for k, v in row.items()}
    assert outline(read_example(arrays)) == expected


UNTRAINED = {
    "train": False, "training": False, "trainable": 0, "loss": False, "loss_mask": 0,
    "loss_scale": 0, "loss_weight": 0.0, "weight": 0,
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), UNTRAINED.items())
def test_every_spelling_of_not_training_is_read(key, value):
    assert read_example([USER, {**ANSWER, key: value}]).messages[1].weight == 0
    assert read_example([{**USER, key: value}, ANSWER]).messages[0].weight == 0
    part = {"type": "text", "text": "A cat.", key: value}
    (read,) = read_example([USER, {**ANSWER, "content": [part]}]).messages[1].content
    assert isinstance(read, TextPart)
    assert read.weight == 0


@pytest.mark.parametrize(
    "calling",
    [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": CALL}]},
        {"role": "assistant", "content": None, "function_call": CALL},
        {"role": "function_call", "content": json.dumps(CALL)},
        {"role": "tool_call", "content": json.dumps([CALL])},
        {"role": "assistant", "tool_calls": [{"name": "look", "args": CALL["arguments"]}]},
        {
            "role": "assistant",
            "tool_calls": [{"name": "look", "arguments": None, "input": CALL["arguments"]}],
        },
        {
            "role": "assistant",
            "tool_calls": [
                {"function": {"name": "look", "arguments": json.dumps(CALL["arguments"])}}
            ],
        },
    ],
)
@pytest.mark.parametrize("role", ["tool", "observation", "tool_response"])
def test_every_spelling_of_a_call_and_its_result_is_read(calling, role):
    read = read_example([USER, calling, {"role": role, "content": "4"}, ANSWER])
    assert [message.role for message in read.messages] == ["user", "assistant", "tool", "assistant"]
    (call,) = read.messages[1].extra["tool_calls"]
    assert call["function"] == CALL
    assert read.messages[1].content == ()


RESPONSES: list[dict[str, Any]] = [
    {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "so"}]},
    {"type": "message", "id": "m", "status": "completed", **ANSWER},
    {"type": "function_call", "id": "i", "call_id": "c1", "status": "completed",
     "name": "look", "arguments": json.dumps(CALL["arguments"])},
    {"type": "function_call", "id": "j", "call_id": "c2", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "4"},
    {"type": "function_call_output", "call_id": "c2", "output": {"seen": [1, None]}},
]  # fmt: skip


def test_items_of_the_responses_api_are_read_as_the_turns_that_they_are():
    read = read_example([USER, *RESPONSES, ANSWER])
    assert [m.role for m in read.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    turn, first, second = read.messages[1:4]
    assert (turn.text, turn.extra["reasoning_content"]) == ("A cat.", "so")
    calls = [(call["id"], call["function"]) for call in turn.extra["tool_calls"]]
    assert calls == [("c1", CALL), ("c2", {"name": "look", "arguments": {}})]
    assert (first.text, first.extra) == ("4", {"tool_call_id": "c1"})
    assert (second.text, second.extra) == ('{"seen": [1, null]}', {"tool_call_id": "c2"})
    assert first.is_string
    assert second.is_string


def test_reasoning_items_in_a_row_are_joined_as_thinking_parts_are():
    again = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "thus"}]}
    hidden = {"type": "reasoning", "summary": []}
    for items in ([RESPONSES[0], again], [RESPONSES[0], hidden, again], [again, RESPONSES[0]]):
        (_, turn) = read_example([USER, *items, ANSWER]).messages
        texts = ["so" if item is RESPONSES[0] else "thus" for item in items if item is not hidden]
        assert turn.extra == {"reasoning_content": "\n".join(texts)}
    with pytest.raises(ConversationError, match=r"messages\[2\]: reasoning has to precede"):
        read_example([USER, again, RESPONSES[0], USER, ANSWER])


def test_a_call_that_does_not_train_is_a_turn_of_its_own():
    call = {**RESPONSES[2], "train": False}
    read = read_example([USER, RESPONSES[1], call, RESPONSES[4], ANSWER])
    assert [m.weight for m in read.messages if m.is_assistant] == [1, 0, 1]


@pytest.mark.parametrize(
    "refusing",
    [
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": "", "refusal": "No."},
        {"role": "assistant", "content": "No.", "refusal": None},
    ],
)
def test_a_refusal_is_the_answer(refusing):
    (_, answer) = read_example([USER, refusing]).messages
    assert (answer.text, answer.extra) == ("No.", {})


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"a": 1}, '{"a": 1}'),
        (4, "4"),
        (True, "true"),
        ([{"a": "ü"}, 2], '[{"a": "ü"}, 2]'),
        (np.float64(0.5), "0.5"),
        ([{"type": "text", "text": "4"}], "4"),
        ({"text": "4"}, "4"),
        ({"text": "4", "score": 1}, '{"text": "4", "score": 1}'),
        ({"type": "weather", "degrees": 4}, '{"type": "weather", "degrees": 4}'),
    ],
)
def test_the_result_of_a_tool_may_be_any_json_value(result, text):
    call = {"role": "assistant", "tool_calls": [CALL]}
    read = read_example([USER, call, {"role": "tool", "content": result}, ANSWER])
    assert read.messages[2].text == text


def test_thinking_parts_become_reasoning():
    content = [{"type": "thinking", "thinking": "so"}, {"type": "text", "text": "A cat."}]
    message = read_example([USER, {**ANSWER, "content": content}]).messages[1]
    assert message.extra == {"reasoning_content": "so"}
    assert message.content == (TextPart("A cat."),)


def calling(arguments):
    return [USER, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": arguments}]}]


ENCODED = b"\x89PNG" + bytes(80)
REFUSED = {
    "a tag without its image": (
        {"messages": [{**USER, "content": "<image>What?"}, ANSWER], "image": ""},
        r"image: holds 0 image item\(s\), but the text has 1 <image> tag",
    ),
    "a part without its image": (
        {
            "messages": [{**USER, "content": [{"type": "image", "image": ""}]}, ANSWER],
            "images": [None],
        },
        r"messages\[0\].content\[0\]: no image is left",
    ),
    "an empty image alone": (
        [{**USER, "content": [{"type": "image", "image": ""}]}, ANSWER],
        r"messages\[0\].content\[0\]: this image part names no image",
    ),
    "media as metadata": ({"messages": [USER, ANSWER], "source": IMAGE}, "source: .*holds media"),
    "media in metadata": (
        {"messages": [USER, ANSWER], "meta": {"shown": [{"bytes": ENCODED, "path": None}]}},
        r"meta.shown\[0\]: .*holds media",
    ),
    "messages in metadata": (
        {"messages": [USER, ANSWER], "info": {"rejected": [{"role": "user", "content": "Why?"}]}},
        "info.rejected: .*holds messages",
    ),
    "a mask in metadata": (
        {"messages": [USER, ANSWER], "annotations": [{"loss_mask": [1, 0]}]},
        r"annotations\[0\].loss_mask: .*holds a mask",
    ),
    "a mask in an array of metadata": (
        {"messages": [USER, ANSWER], "annotations": np.array([{"train": False}], object)},
        r"annotations\[0\].train: .*holds a mask",
    ),
    "a mask in the metadata of a part": (
        [{**USER, "content": [{"type": "text", "text": "a", "meta": {"train": 0}}]}, ANSWER],
        r"messages\[0\].content\[0\].meta.train: .*holds a mask",
    ),
    "media inside another column": (
        {"messages": [USER, ANSWER], "page": {"scans": [IMAGE]}},
        r"page: .*holds media, messages or a mask at 'page.scans\[0\]'",
    ),
    "an unknown block of an image": (
        [{**USER, "content": [{"type": "image", "source": {"type": "file", "id": 3}}]}, ANSWER],
        r"messages\[0\].content\[0\].source: expected a dict with 'type': 'base64'",
    ),
    "an image twice": (
        [
            {
                **USER,
                "content": [{"type": "image", "image": "a", "source": {"type": "url", "url": "b"}}],
            },
            ANSWER,
        ],
        "names more than one image",
    ),
    "one list of frames for two tags": (
        {"messages": [{**USER, "content": "<video><video>"}, ANSWER], "video": [IMAGE, IMAGE]},
        r"video: holds 1 video item\(s\), but the text has 2 <video> tag",
    ),
    "arguments of plain text": (calling("at home"), r"at character 0: .*with json.dumps"),
    "arguments as Python writes them": (calling("{'a': 1}"), r"at character 1: .*with json.dumps"),
    "arguments without names": (calling("[1]"), "expected a dict of arguments .*found list"),
    "arguments in a list": (calling([1]), "expected a dict of arguments .*found list"),
    "arguments that are JSON twice": (calling(json.dumps("{}")), "found str '{}'"),
    "a forced choice of tools": (
        {"messages": [USER, ANSWER], "tool_choice": "required"},
        "tool_choice: .*holds tools",
    ),
    "tools that are no schema": (
        {"messages": [USER, ANSWER], "tools": {"a": 1}},
        "tools: expected",
    ),
    "an answer that is a number": (
        {"question": "How many?", "answer": 4},
        "answer: expected a string in the format 'question_answer', found int 4; convert",
    ),
    "an output that is a list": (
        {"instruction": "What?", "output": ["a"]},
        "output: expected a string in the format 'alpaca', found list",
    ),
    "a prompt that trains": (
        {"prompt": [USER, {**ANSWER, "train": True}, USER], "completion": [ANSWER]},
        r"prompt\[1\]: has a weight, but only the completion trains",
    ),
    "a prompt that weighs": (
        {"prompt": json.dumps([USER, {**ANSWER, "weight": 0.5}, USER]), "completion": "b"},
        r"prompt\[1\]: has a weight",
    ),
    "a part of a prompt that weighs": (
        {
            "prompt": [{**ANSWER, "content": [{"type": "text", "text": "a", "weight": 1}]}, USER],
            "completion": "b",
        },
        r"prompt\[0\]: has a weight",
    ),
    "an unknown item": (
        [USER, {"type": "web_search_call", "id": "w"}, ANSWER],
        r"messages\[1\].type: .*'web_search_call', expected one of \['function_call'",
    ),
    "reasoning without an answer": ([USER, ANSWER, RESPONSES[0]], r"messages\[2\]: reasoning has"),
    "reasoning twice": (
        [USER, RESPONSES[0], {**ANSWER, "reasoning_content": "a"}],
        r"messages\[1\]: its answer holds reasoning as well",
    ),
    "a result that weighs": (
        [USER, {"role": "assistant", "tool_calls": [CALL]}, {**RESPONSES[4], "train": True}],
        "only answers train",
    ),
    "a call without result": (
        [USER, RESPONSES[2], {"type": "function_call_output", "call_id": "c1"}],
        r"messages\[2\].output: expected the result",
    ),
    "a refusal and a content": ([USER, {**ANSWER, "refusal": "No."}], "a content and a refusal"),
    "reasoning behind a text": (
        [
            USER,
            {
                **ANSWER,
                "content": [
                    {"type": kind, kind: kind} for kind in ("thinking", "text", "thinking", "text")
                ],
            },
        ],
        r"messages\[1\].content\[2\]: is reasoning behind other content",
    ),
    "too many tags": (
        {"messages": [{**USER, "content": "<image><image>"}, ANSWER], "images": [IMAGE]},
        r"images: holds 1 image item\(s\), but the text has 2 <image> tag",
    ),
    "two columns of media": (
        {"messages": [USER, ANSWER], "image": "a", "image_url": "b"},
        "'image' and 'image_url'; keep one",
    ),
    "preferences": (
        {"messages": [USER, ANSWER], "rejected": [{"role": "assistant", "content": "A dog."}]},
        "rejected: .*holds messages",
    ),
    "a mask": ({"messages": [USER, ANSWER], "loss_mask": [0, 1]}, "loss_mask: .*holds a mask"),
    "objects": (
        {"messages": [USER, ANSWER], "objects": {"bbox": [[1, 2, 3, 4]]}},
        "objects of a grounding",
    ),
    "images of another name": (
        {"messages": [USER, ANSWER], "thumbnail": IMAGE},
        "thumbnail: .*holds media",
    ),
    "two readings": (
        {"messages": [USER, ANSWER], "question": "Why?", "answer": "So."},
        r"two readings: as 'messages', and as 'question_answer' with \['answer', 'question'\]",
    ),
    "JSON cut off": ({"messages": '[{"role": "user"'}, "no valid JSON at character"),
    "contradicting weights": (
        [USER, {**ANSWER, "loss": True, "train": False}],
        "contradict each other",
    ),
    "an empty answer": ([USER, {"role": "assistant", "content": None}], "has no content"),
    "a system prompt twice": (
        {"messages": [{"role": "system", "content": "a"}, USER, ANSWER], "system": "b"},
        "system: differs from the system message",
    ),
    "a call without a name": (
        [USER, {"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}],
        "expected the name of the function",
    ),
    "arguments twice": (
        [USER, {"role": "assistant", "tool_calls": [{**CALL, "parameters": {"a": 1}}]}],
        "'arguments' and 'parameters'; keep one",
    ),
    "a weight inside a call": (
        [USER, {"role": "assistant", "tool_calls": [{"function": CALL, "weight": 0}]}],
        "weight: .*holds a mask",
    ),
    "a weight of reasoning": (
        [USER, {**ANSWER, "content": [{"type": "thinking", "thinking": "a", "train": False}]}],
        "reasoning has that of its message",
    ),
    "a part that trains in a message that does not": (
        [USER, {**ANSWER, "train": False, "content": [{"type": "text", "text": "a", "weight": 1}]}],
        "does not train, but a part",
    ),
    "a weight of a user's part": (
        [{**USER, "content": [{"type": "text", "text": "a", "weight": 0.5}]}, ANSWER],
        "does not train, but a part",
    ),
    "a weight of blanks": (
        [USER, {**ANSWER, "content": [{"type": "text", "text": " ", "weight": 0}, "a"]}],
        "has a weight, but no words",
    ),
    "a weight that is no number": ([USER, {**ANSWER, "train": float("nan")}], "found"),
    "a prefix that the completion follows": (
        {"prompt": [USER, {**ANSWER, "prefix": True}], "completion": "b"},
        "the last message of the prompt is a prefix",
    ),
    "a prefix with calls": (
        [USER, {**ANSWER, "prefix": True, "tool_calls": [CALL]}],
        "is a prefix, .*but has tool calls",
    ),
    "another answer": (
        {"messages": [USER, ANSWER], "rejected": {"role": "assistant", "content": "cat"}},
        "rejected: .*holds messages",
    ),
    "other words of the same letters": (
        {"messages": [USER, ANSWER], "rejected": [{"role": "assistant", "content": "cat"}]},
        "rejected: .*holds messages",
    ),
    "fewer images than paths": (
        {"messages": [USER, ANSWER], "image": IMAGE, "image_paths": ["a", "b"]},
        "'image' and 'image_paths'; keep one",
    ),
    "images in another order": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "index": i} for i in (1, 0)]},
                ANSWER,
            ],
            "images": [IMAGE, IMAGE],
        },
        "has the index 1, but parts are filled in order, and item 0 is next",
    ),
    "unknown": ({"words": "a"}, r"expected .*'messages', 'llava'.*found a dict with \['words'\]"),
}


@pytest.mark.parametrize(("row", "problem"), REFUSED.values(), ids=REFUSED)
def test_rows_that_would_train_on_something_else_are_refused(row, problem):
    with pytest.raises(ConversationError, match=problem):
        read_example(row)


MASKS = {
    "train_detail": {"a": 1}, "mask_history": True, "train_turns": [1], "supervise": False,
    "no_loss": True, "is_masked": 0, "computeLoss": False, "train_on_input": False,
    "step_loss_mask": 1, "turns_to_train": np.array([0, 2]), "label_mask": [0, 1],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), MASKS.items())
def test_masks_of_other_names_are_refused(key, value):
    with pytest.raises(ConversationError, match=f"{key}: .*holds a mask"):
        read_example({"messages": [USER, ANSWER], key: value})
    collator = collator_for(processor_of("qwen2_5_vl"))
    with pytest.raises(ConversationError, match=rf"messages\[1\].{key}: .*holds a mask"):
        collator.encode([USER, {**ANSWER, key: value}])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_id", 7),
        ("loss_type", "ce"),
        ("train_source", "web"),
        ("num_train_tokens", 5),
        ("boxes", np.zeros((3, 4))),
        ("digest", bytes(32)),
    ],
)
def test_other_columns_that_resemble_masks_or_media_warn(key, value):
    with pytest.warns(UnreadKeyWarning, match=f"nothing reads the key '{key}'"):
        assert outline(read_example({"messages": [USER, ANSWER], key: value})) == PLAIN


@pytest.mark.parametrize(
    "metadata",
    [
        {"loss": 0.53, "weight": 3, "labels": ["cat"], "masked_lm": "no"},
        {"image_path": "a.png", "text": "What?"},
        [{"role": "user", "content": "What?"}],  # which the conversation holds
        "a text",
        {"deep": [[[[[[[[[[{"train": False}]]]]]]]]]]},
    ],
)
def test_metadata_that_describes_is_no_error(metadata, recwarn):
    row = {"messages": [USER, ANSWER], "metadata": metadata}
    assert outline(read_example(row, on_unread="raise")) == PLAIN
    assert not recwarn.list


@pytest.mark.parametrize(
    "columns",
    [
        {"image": ""},
        {"images": [None]},
        {"images": []},
        {"images": [float("nan"), ""]},
        {"image": {"bytes": None, "path": None}},
        {"images": [{"bytes": None, "path": None}]},
        {"images": np.array([None], object)},
        {"video": "", "audio": {"path": ""}},
    ],
)
def test_fillers_are_no_media(columns, recwarn):
    assert outline(read_example({"messages": [USER, ANSWER], **columns})) == PLAIN
    seen = read_example({"messages": [USER, ANSWER], **columns, "img": IMAGE})
    assert outline(seen) == SEEN
    assert not recwarn.list


def test_fillers_of_parts_and_messages_are_no_media(recwarn):
    filler = {"image": {"bytes": None, "path": None}, "video": ""}
    text = {"type": "text", "text": "What?", **filler}
    assert outline(read_example([{**USER, "content": [text]}, ANSWER])) == PLAIN
    untyped = {"text": "What?", **filler}
    assert outline(read_example([{**USER, "content": [untyped]}, ANSWER])) == PLAIN
    shown = {"type": "image", "image": IMAGE, "url": "", "video": ""}
    assert outline(read_example([{**USER, "content": [shown, text]}, ANSWER])) == SEEN
    collator = collator_for(processor_of("qwen2_5_vl"), on_unread="raise")
    assert len(collator.encode([{**USER, **filler}, ANSWER]))
    assert not recwarn.list


@pytest.mark.parametrize(
    "frames",
    [
        [IMAGE, IMAGE],
        ["a.jpg", "b.PNG"],
        [{"bytes": ENCODED, "path": None}] * 2,
        [ENCODED, ENCODED],
        [np.zeros((4, 3, 3), np.uint8)] * 3,
        json.dumps(["a.jpg", "b.jpg"]),
        [[IMAGE, IMAGE]],
    ],
)
def test_a_list_of_frames_in_a_column_for_one_video_is_one_video(frames):
    for content in ("What?", "<video>What?", [{"type": "video"}, "What?"]):
        row = {"messages": [{**USER, "content": content}, ANSWER], "video": frames}
        ((_, part),) = read_example(row).media
        assert part.kind == "video"
        assert len(part.source) >= 2


def test_several_videos_in_a_column_for_one_are_several():
    row = {"messages": [USER, ANSWER], "video": ["a.mp4", "b.mp4"]}
    assert [part.source for _, part in read_example(row).media] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("block", "source"),
    [
        (
            {"type": "base64", "media_type": "image/png", "data": "iVBO"},
            "data:image/png;base64,iVBO",
        ),
        ({"type": "url", "url": "https://a/b.png"}, "https://a/b.png"),
    ],
)
def test_blocks_of_the_anthropic_api_are_read(block, source):
    row = [{**USER, "content": [{"type": "image", "source": block}]}, ANSWER]
    assert [part.source for _, part in read_example(row).media] == [source]


def test_blank_answers_and_untrained_ones_without_content_are_read():
    assert read_example([USER, {**ANSWER, "content": ""}]).messages[1].content == (TextPart(""),)
    untrained = {"role": "assistant", "content": None, "train": False}
    assert read_example([USER, untrained]).messages[1].content == ()


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [("auto", "warns"), ("warn", "warns"), ("raise", "raises"), ("allow", "")],
)
def test_other_strings_and_numbers_follow_the_policy(policy, outcome, recwarn):
    row = {"messages": [USER, ANSWER], "model": "x", "score": 3, "id": 7, "metadata": {"a": 1}}
    if outcome == "raises":
        with pytest.raises(ConversationError, match="nothing reads the key 'model'"):
            read_example(row, on_unread=policy)
        return
    assert outline(read_example(row, on_unread=policy)) == PLAIN
    named = [str(w.message) for w in recwarn if issubclass(w.category, UnreadKeyWarning)]
    assert len(named) == (2 if outcome else 0)


def test_a_tag_without_media_stays_text_with_a_warning():
    with pytest.warns(UnreadKeyWarning, match="holds <image>, but the example has no media"):
        read = read_example([{**USER, "content": "<image> is a tag"}, ANSWER])
    assert read.messages[0].content == (TextPart("<image> is a tag"),)


def test_none_in_a_json_string_stays_and_in_a_dict_is_an_option():
    given = {"a": None, "b": 1}

    def arguments(value, **options):
        call = {"function": {"name": "f", "arguments": value}}
        row = {"messages": [USER, {"role": "assistant", "tool_calls": [call]}]}
        read = read_example(row, MessagesFormat(**options)) if options else read_example(row)
        return read.messages[1].extra["tool_calls"][0]["function"]["arguments"]

    assert arguments(json.dumps(given)) == given
    assert arguments(given, keep_none_arguments=True) == given
    with pytest.warns(UnreadKeyWarning, match="keep_none_arguments=True"):
        assert arguments(given) == {"b": 1}


def test_a_format_has_a_root_of_its_media():
    row, _ = ROWS["llava"]
    media = list(read_example(row, LlavaFormat(media_root="/data")).media)
    assert [(part.source, part.where) for _, part in media] == [("/data/a.jpg", "image[0]")]
    kept = {**row, "image": "https://a/b.png"}
    ((_, part),) = read_example(kept, LlavaFormat(media_root="/data")).media
    assert part.source == "https://a/b.png"


class Riddles(DatasetFormat):
    """A format of a third party."""

    name = "riddles"

    def reads(self, example):
        return "riddle" in example

    def read_fields(self, fields, reading):
        return read_example(
            [{**USER, "content": fields.pop("riddle")}, {**ANSWER, "content": fields.pop("key")}]
        ).messages


SCHEMA = {"type": "function", "function": {"name": "look"}}


@pytest.mark.parametrize(
    "tools", [[SCHEMA], SCHEMA, json.dumps(SCHEMA), json.dumps([SCHEMA]), [json.dumps(SCHEMA)]]
)
def test_one_schema_is_a_list_of_tools(tools):
    assert read_example({"messages": [USER, ANSWER], "tools": tools}).tools == [SCHEMA]


def test_no_tools_and_a_free_choice_are_nothing(recwarn):
    for extra in ({"tools": ""}, {"tools": "[]"}, {"tools": [], "tool_choice": "auto"}):
        read = read_example({"messages": [USER, ANSWER], **extra})
        assert (read.tools, dict(read.unread)) == (None, {})
    assert not recwarn.list


def test_a_call_may_have_no_arguments():
    absent: list[Any] = ["", " ", "null", "{}", None, {}]
    for arguments in absent:
        (_, turn) = read_example(calling(arguments)).messages
        assert turn.extra["tool_calls"][0]["function"]["arguments"] == {}


def test_an_answer_that_is_a_number_is_refused_in_the_format_that_is_stated():
    with pytest.raises(ConversationError, match="answer: expected a string") as raised:
        read_example({"question": "How many?", "answer": 4}, "question_answer")
    assert raised.value.where == "answer"


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match=r"class LlavaFormat; .*LlavaFormat\(\)"):
        read_example([USER, ANSWER], LlavaFormat)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="media_root must be the path of a folder"):
        LlavaFormat(media_root=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="keep_none_arguments must be"):
        MessagesFormat(keep_none_arguments="yes")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"found 'ignore', expected one of \['auto', 'raise'"):
        read_example([USER, ANSWER], on_unread="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({"messages": [USER, ANSWER], "chat_template_kwargs": {"thiking": True}}, "thiking"),
        ({"messages": [{**USER, "name": "Ada"}, ANSWER]}, "name"),
    ],
)
def test_what_the_template_does_not_write_is_reported(row, key):
    processor = processor_of("qwen3_vl")  # whose template mentions the name of a tool's message
    with pytest.warns(UnreadKeyWarning, match=f"nothing reads the key '{key}'"):
        collator_for(processor).encode(row)
    with pytest.raises(ConversationError, match=f"nothing reads the key '{key}'"):
        collator_for(processor, on_unread="raise").encode(row)


def test_models_without_a_template_refuse_tools():
    row = {"messages": [USER, ANSWER], "tools": [SCHEMA]}
    with pytest.raises(ConversationError, match="tools: this model takes no tools"):
        collator_for(processor_of("paligemma")).encode(row)


def test_a_third_party_registers_its_format(monkeypatch):
    monkeypatch.setattr("vlmcollate.formats.registry.REGISTERED", {})  # restored afterwards
    monkeypatch.setattr("vlmcollate.formats.examples.REGISTERED", registry.REGISTERED)
    row = {"riddle": "What?", "key": "A cat.", "image": IMAGE}
    with pytest.raises(ConversationError, match="not a conversation"):
        read_example(row)
    register_format(Riddles())
    found = read_example(row)
    assert (outline(found), found.format) == (SEEN, "riddles")
    assert read_example(row, "riddles").format == "riddles"
    with pytest.raises(ConfigError, match="called with its options"):
        register_format(Riddles)  # type: ignore[arg-type]


def test_an_unknown_format_is_refused_when_the_collator_is_made():
    processor = processor_of("qwen2_5_vl")
    with pytest.raises(ConfigError, match="did you mean 'llava'"):
        collator_for(processor, format="lava")
    collator = collator_for(processor, format="question_answer")
    assert len(collator.encode({"question": "What?", "answer": "A cat."}))


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([{"role": "usr", "content": "a"}, ANSWER], r"messages\[0\].role: .*did you mean 'user'"),
        ([USER, {"role": "asistant", "content": "a"}], "did you mean 'assistant'"),
        ([USER, {**ANSWER, "image": IMAGE}], r"messages\[1\].image: found Image"),
    ],
)
def test_what_the_template_does_not_know_is_refused(messages, problem):
    collator = collator_for(processor_of("qwen2_5_vl"))
    with pytest.raises(ConversationError, match=problem):
        collator.encode(messages)


def test_part_weights_are_those_of_their_tokens():
    collator = collator_for(processor_of("qwen2_5_vl"))
    parts = [("One.", None), (" Two.", 0), (" Three.", 0.5)]
    content = [
        {"type": "text", "text": text, **({} if weight is None else {"weight": weight})}
        for text, weight in parts
    ]
    sample = collator.encode([USER, {**ANSWER, "content": content}])
    decode = collator.processor.tokenizer.decode
    weights = sample.tokens["loss_weights"]
    by_weight = {w: decode(sample.input_ids[weights == w]) for w in (1.0, 0.5)}
    assert by_weight == {1.0: "One.<|im_end|>", 0.5: " Three."}
    assert (sample.labels != -100).tolist() == (weights > 0).tolist()


def test_the_format_is_part_of_the_conversation():
    assert {read_example(row).format for row, _ in ROWS.values()} > {"messages", "llava", "alpaca"}


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "smolvlm", "llava"])
@pytest.mark.parametrize("text", ["It is", "It is "])
def test_a_prefix_neither_trains_nor_ends(name, text):
    collator = collator_for(processor_of(name))
    prefix = {**ANSWER, "content": text, "prefix": True}
    sample = collator.encode([USER, ANSWER, {**USER, "content": "And?"}, prefix])
    shown = collator.processor.tokenizer.decode(sample.input_ids)
    assert shown.rstrip().endswith("It is")
    decode = collator.processor.tokenizer.decode
    assert decode(sample.input_ids[sample.labels != -100]).lstrip().startswith("A cat.")
    assert "It is" not in decode(sample.input_ids[sample.labels != -100])
    with pytest.raises(ConversationError, match="only the last message may be a prefix"):
        read_example([USER, prefix, USER, ANSWER])
    with pytest.raises(ConversationError, match="expected True in an assistant message"):
        read_example([{**USER, "prefix": True}])


def test_calls_in_a_row_are_one_turn():
    calls = [{"role": "tool_call", "content": json.dumps({**CALL, "name": n})} for n in "fg"]
    read = read_example([USER, *calls, {"role": "tool_response", "content": "4"}, ANSWER])
    assert [message.role for message in read.messages] == ["user", "assistant", "tool", "assistant"]
    names = [call["function"]["name"] for call in read.messages[1].extra["tool_calls"]]
    assert names == ["f", "g"]


def test_the_parts_of_a_prompt_do_not_train():
    earlier = {**ANSWER, "content": [{"type": "text", "text": "secret", "train": False}]}
    row = {"prompt": [USER, earlier, USER], "completion": [ANSWER]}
    collator = collator_for(processor_of("qwen2_5_vl"))
    sample = collator.encode(row)
    trained = sample.input_ids[sample.labels != -100]
    assert collator.processor.tokenizer.decode(trained) == "A cat.<|im_end|>"


@pytest.mark.parametrize("family", ["smolvlm", "llava", "idefics3", "qwen2_5_vl"])
def test_a_part_behind_a_space_of_the_template_has_its_weight(family):
    collator = collator_for(processor_of(family))
    tokenizer = collator.processor.tokenizer
    for words in ("Yes", "Yes it is"):
        part = {"type": "text", "text": words, "train": False}
        more = {"type": "text", "text": " and more"}
        for content, text in (([part], ""), ([part, more], "and more")):
            chat = [
                {"role": "user", "content": [{"type": "text", "text": "What?"}]},
                {"role": "assistant", "content": content},
            ]
            sample = collator.encode(chat)
            trained = tokenizer.decode(sample.input_ids[sample.labels != -100])
            assert trained.strip().startswith(text)
            assert "Yes" not in trained
            assert "is" not in trained


def test_the_whitespace_of_a_part_has_its_weight():
    collator = collator_for(processor_of("qwen2_5_vl"))
    content = [{"type": "text", "text": "think\n\n", "train": False}, {"type": "text", "text": "A"}]
    sample = collator.encode([USER, {**ANSWER, "content": content}])
    trained = sample.input_ids[sample.labels != -100]
    assert collator.processor.tokenizer.decode(trained) == "A<|im_end|>"


@pytest.mark.parametrize(
    "row",
    [
        [{"role": "assistant", "content": "a"}, USER, ANSWER],
        {"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]},
    ],
)
def test_a_chat_that_the_assistant_opens_is_served(row):
    sample = collator_for(processor_of("qwen2_5_vl")).encode(row)
    assert 0 in sample.message_ids[sample.labels != -100]


@pytest.mark.parametrize("name", ["messages", "llava", "alpaca", "question_answer"])
def test_a_row_of_another_format_is_refused(name):
    with pytest.raises(ConversationError, match=f"is not in the format '{name}'"):
        read_example({"query": "a", "response": "b"}, name)


def test_a_json_answer_is_text():
    boxes = '[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}]'
    read = read_example({"prompt": "Find boxes", "completion": boxes})
    assert read.messages[1].text == boxes


def test_media_roots_reach_paths_inside_dicts():
    row = {"conversations": [USER, ANSWER], "images": [{"path": "a.png", "bytes": None}]}
    ((_, part),) = read_example(row, LlavaFormat(media_root="/data")).media
    assert part.source["path"] == "/data/a.png"


def test_an_unknown_role_follows_the_policy():
    collator = collator_for(processor_of("qwen2_5_vl"), on_unread="warn")
    with pytest.warns(UnreadKeyWarning, match="has the role 'usr'"):
        collator.encode([USER, {"role": "usr", "content": "a"}, ANSWER])


def test_a_field_of_a_message_that_only_parts_have_is_refused():
    with pytest.raises(ConversationError, match=r"messages\[0\].image: .*holds media"):
        collator_for(processor_of("qwen2_5_vl")).encode([{**USER, "image": "a.png"}, ANSWER])


def test_a_prefix_that_ends_with_media_is_refused():
    content = [{"type": "text", "text": "See"}, {"type": "image", "image": IMAGE.resize((56, 56))}]
    collator = collator_for(processor_of("qwen2_5_vl"))
    with pytest.raises(ConversationError, match="ends with media"):
        collator.encode([USER, ANSWER, USER, {**ANSWER, "content": content, "prefix": True}])


def test_columns_that_another_format_cannot_read_are_no_second_reading():
    row = {"messages": [USER, ANSWER], "conversations": ""}
    with pytest.raises(ConversationError, match=r"nothing reads the key|two readings"):
        read_example(row, on_unread="raise")
    assert outline(read_example(row, on_unread="allow")) == PLAIN


def test_calls_in_a_row_that_hold_more_stay_apart():
    calls = [{"role": "tool_call", "content": json.dumps(CALL), "note": n} for n in "ab"]
    read = read_example([USER, *calls, ANSWER])
    assert [message.extra["note"] for message in read.messages[1:3]] == ["a", "b"]
