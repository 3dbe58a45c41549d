"""TRL's GRPOTrainer, whose rollouts are sampled from the collator's prompts."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from examples.chats import chats
from vlmcollate import BaseCollator, EncodedSample, collator_for
from vlmcollate.testing import tiny_model, tiny_processor

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func may change
NEW_TOKENS = 8


def sampled(model: Any, collator: BaseCollator, prompts: list[Any]) -> list[dict[str, Any]]:
    """Samples an answer to each prompt, with the log probabilities of its tokens."""
    batch = collator.stack_prompts(prompts)
    with torch.no_grad():
        found = model.generate(
            **batch,
            max_new_tokens=NEW_TOKENS,
            do_sample=True,
            top_k=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
    new = found.sequences[:, batch["input_ids"].shape[1] :]
    chances = torch.stack(found.logits, 1).float().log_softmax(-1)
    chances = chances.gather(-1, new[..., None])[..., 0]
    answers = []
    for ids, values in zip(new.tolist(), chances.tolist(), strict=True):
        ends = [k for k, token in enumerate(ids) if token in collator.stop_ids]
        length = ends[0] + 1 if ends else len(ids)
        answers.append({"ids": ids[:length], "logprobs": values[:length]})
    return answers


def main(steps: int = 3) -> tuple[list[EncodedSample], list[float]]:
    """Trains; returns the samples of all rollouts, and the mean reward of each step."""
    processor = tiny_processor()
    collator = collator_for(processor)
    samples: list[EncodedSample] = []

    def rollout(messages: list[Any], trainer: Any) -> dict[str, list[Any]]:
        prompts = [collator.prompt(chat) for chat in messages]
        answers = sampled(trainer.model, collator, prompts)
        samples.extend(
            prompt.sample(answer["ids"], answer["logprobs"])
            for prompt, answer in zip(prompts, answers, strict=True)
        )
        return {
            "prompt_ids": [prompt.encoded.input_ids.tolist() for prompt in prompts],
            "completion_ids": [answer["ids"] for answer in answers],
            "logprobs": [answer["logprobs"] for answer in answers],
        }

    def even_tokens(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]

    trainer = GRPOTrainer(
        model=tiny_model(processor),
        reward_funcs=even_tokens,
        args=GRPOConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=NEW_TOKENS,
            max_steps=steps,
            logging_steps=1,
            gradient_checkpointing=False,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list([{"row": i} for i in range(8)]).with_transform(_examples),
        processing_class=processor,
        rollout_func=rollout,
    )
    trainer.train()
    return samples, [e["reward"] for e in trainer.state.log_history if "reward" in e]


def _examples(rows: dict[str, list[int]]) -> dict[str, list[Any]]:
    """Returns prompts without their answers, and their images."""
    questions = [chats(16)[row]["messages"][:1] for row in rows["row"]]
    images = [[part["image"] for part in q[0]["content"] if "image" in part] for q in questions]
    texts = [[{"role": "user", "content": q[0]["content"][-1]["text"]}] for q in questions]
    return {"prompt": texts, "images": images}


if __name__ == "__main__":
    print(main()[1])
