import pickle
from typing import Any

import pytest
from torch.utils.data import DataLoader

from vlmcollate import SampleError, collator_for
from vlmcollate.errors import (
    ConversationError,
    LabelError,
    MediaError,
    MediaMismatchError,
    SampleTooLongError,
)
from vlmcollate.testing import tiny_processor

KINDS = [ConversationError, LabelError, MediaError, MediaMismatchError, SampleTooLongError]


@pytest.mark.parametrize("kind", KINDS)
def test_pickling_keeps_index_place_and_kind(kind):
    error = pickle.loads(pickle.dumps(kind("no good", where="messages[1]", index=4)))
    assert type(error) is kind
    assert (error.problem, error.where, error.index) == ("no good", "messages[1]", 4)
    assert str(error) == "sample 4, messages[1]: no good"


def test_at_fills_in_only_what_is_unknown():
    error = SampleError("bad", where="here").at(index=2, where="there")
    assert str(error) == "sample 2, here: bad"


def test_an_error_arrives_from_a_worker_with_its_place():
    collator = collator_for(tiny_processor("qwen2_5_vl"))
    chats = [
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}],
        [{"role": "user", "content": 7}],
    ]
    # a list is a map-style dataset, whatever the annotation says
    loader: Any = DataLoader(chats, batch_size=2, collate_fn=collator, num_workers=1)  # type: ignore[arg-type]
    with pytest.raises(ConversationError, match=r"sample 1, messages\[0\]\.content"):
        next(iter(loader))
