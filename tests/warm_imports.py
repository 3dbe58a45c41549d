"""What the fork server of a run imports, so that the processes it forks need not.

`multiprocessing.get_context("forkserver")` starts a process in a fraction of the time that a
fresh Python takes to import torch and transformers. Tests of a fresh Python start one themselves.
"""

from tests import processors
from vlmcollate import collator_for, data
from vlmcollate.cli import app
from vlmcollate.testing import check_collator, tiny_model, tiny_processor

__all__ = ["app", "check_collator", "collator_for", "data", "processors", "tiny_model"]

# imports the classes of transformers, which are loaded at first use
collator_for(tiny_processor()).encode(
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
)
