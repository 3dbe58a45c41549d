"""A stand-in for a collator, in a module whose imports take little time."""

import os
import sys

import torch


class WithProcessId:
    """Returns the id of its process, and prints to the stream of the answers."""

    def __call__(self, examples):
        if examples == ["raise"]:
            raise ValueError("no such example")
        if examples == ["end"]:
            os._exit(3)
        sys.stdout.write("printed")
        sys.stdout.flush()
        hashed = torch.tensor([os.getpid(), hash("a word")])
        return {"hashed": hashed, "masks": {"full": torch.ones(2)}, "name": "none"}
