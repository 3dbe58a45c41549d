"""verl's own functions take the samples of the dataset; its trainer excludes our transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainers.rows import read_rows, save_checkpoint, write_rows
from vlmcollate.testing import tiny_model

pytest.importorskip("verl.utils.dataset.dataset_utils", reason="run scripts/try_trainer.py verl")
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from omegaconf import OmegaConf
    from verl.utils.import_utils import load_extern_object

    folder = tmp_path_factory.mktemp("verl")
    processor = save_checkpoint(folder)
    processor.tokenizer.name_or_path = str(folder)
    rows = read_rows(write_rows(folder))
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    config = OmegaConf.create(
        {
            "max_length": 256,
            "truncation": "error",
            "pad_mode": "no_padding",
            "custom_cls": {"path": "pkg://vlmcollate.integrations.verl", "name": "CollatorDataset"},
            "vlmcollate": {"train_on": "all_turns"},
        }
    )
    cls: Any = load_extern_object(config.custom_cls.path, config.custom_cls.name)
    return cls(
        parquet_files=str(folder / "rows.parquet"),
        tokenizer=processor.tokenizer,
        config=config,
        processor=processor,
        max_samples=-1,
    )


def _loss(model, batch) -> Any:
    """Runs a model as verl's FSDP engine does, on one row without padding."""
    from tensordict import TensorDict
    from verl.utils.model import extract_multi_modal_inputs
    from verl.workers.utils.losses import sft_loss

    data = TensorDict(batch, batch_size=len(batch["input_ids"]))
    media = extract_multi_modal_inputs(data.get("multi_modal_inputs", []))
    ids = data["input_ids"].values()[None]
    positions = torch.cat(list(data["position_ids"].unbind()), dim=-1)[:, None]
    logits = model(input_ids=ids, position_ids=positions, **media).logits[0]
    next_ids = ids[0].roll(-1)
    log_probs = logits.log_softmax(-1).gather(-1, next_ids[:, None])[:, 0]
    nested = torch.nested.nested_tensor_from_jagged(log_probs, data["input_ids"].offsets())
    given = {
        "loss_mask": data["loss_mask"],
        "dp_size": 1,
        "batch_num_tokens": data["loss_mask"].values().sum(),
    }
    found: torch.Tensor = sft_loss(None, {"log_probs": nested}, given)[0]
    return found


def test_a_model_trains_with_the_collate_and_the_loss_of_verl(dataset, monkeypatch):
    from verl.utils import tensordict_utils
    from verl.utils.dataset.dataset_utils import SFTTensorCollator

    monkeypatch.setattr(
        tensordict_utils, "get_non_tensor_data", lambda data, key, default: data.get(key, default)
    )
    model = tiny_model(dataset.collator.processor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, collate_fn=SFTTensorCollator("no_padding")
    )
    losses = []
    for batch in loader:
        loss = _loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
