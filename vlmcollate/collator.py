"""The collator: the stages that one sample runs through, and the two halves of a batch.

Shapes: B samples, L a sample's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import attrs

from vlmcollate.encode.construction import check_options
from vlmcollate.encode.each import encode_together, finished, raise_error
from vlmcollate.encode.processor_facts import tokenizer_of
from vlmcollate.encode.samples import Samples
from vlmcollate.encode.trace import Trace, untraced
from vlmcollate.encode.turn_splitting import may_end
from vlmcollate.errors import ConfigError, EmptyBatchError, SampleError
from vlmcollate.explain import Explanation
from vlmcollate.sample import EncodedSample
from vlmcollate.tokens.vocabulary import Vocabulary


@attrs.frozen(kw_only=True, eq=False)
class BaseCollator(Samples):
    """Turns conversations into a training batch with an exact label mask.

    A collator is a value: frozen, picklable, without state. `encode` does everything that depends
    on the model, for one sample; `stack` does everything that depends on the batch; calling the
    collator does both. These three are final. A subclass declares its `family`, and may override
    stages, which run in this order:

    1. `read` turns an example into a `Conversation`.
    2. `render` writes the prompt.
    3. `load` decodes its media.
    4. `process_media` calls the processor for the media, and the prompt is tokenized.
    5. `label` finds the assistant turns.
    6. `postprocess` changes the labelled sample.

    A subclass that adds options needs the decorator `@attrs.frozen(kw_only=True, eq=False)`.

    Args: see `CollatorOptions`.
    """

    def __attrs_post_init__(self) -> None:
        """Refuses options that contradict each other or that the processor cannot serve."""
        if type(self) is BaseCollator:
            raise ConfigError("BaseCollator is abstract; use collator_for(processor) or a subclass")
        check_options(
            Vocabulary.of(tokenizer_of(self.processor)),
            max_length=self.max_length,
            on_overlong=self.on_overlong,
            stop_tokens=self.stop_tokens,
            allowed_special_tokens=self.allowed_special_tokens,
            structure=lambda: self.renderer.structure,
            expansion_tokens=lambda: self.prompt_encoder.expansion_tokens(),
            template_kwargs=self.template_kwargs,
        )
        if self.padding.separates_by is not None:
            self._check_packs()
        if self.pixels == "uint8":
            self._check_bytes()

    @final
    def __call__(self, examples: Sequence[object]) -> dict[str, Any]:
        """Collates examples into a batch.

        Args:
            examples: The dataset's items; see `read_example`.

        Returns:
            See `stack`.

        Raises:
            SampleError: An example is at fault; the error holds its index.
            StrategyError: A strategy has a bug; the error holds the index as well.
            EmptyBatchError: There is no example, or all were dropped.
        """
        return self.collate(examples)

    @final
    def collate(
        self,
        examples: Sequence[object],
        *,
        on_error: Callable[[SampleError], Sequence[EncodedSample]] | None = None,
    ) -> dict[str, Any]:
        """Collates examples into a batch, with a policy for each example that fails.

        Args:
            examples: The dataset's items.
            on_error: Called with each `SampleError`, which holds its index. It returns the samples
                to use instead, none of them to skip the example, or raises. By default the error
                is raised.

        Returns:
            See `stack`.

        Raises:
            EmptyBatchError: There is no example, or none is left.
        """
        samples = encode_together(examples, self.encode_in_steps, on_error or raise_error)
        if examples and not samples:
            raise EmptyBatchError(
                f"none of the {len(examples)} examples is left: all failed, or are longer than "
                f"max_length={self.max_length} and were dropped"
            )
        return self.stack(samples)

    @final
    def encode(self, example: object) -> EncodedSample:
        """Encodes one example.

        Args:
            example: A conversation in any form that `read_example` reads.

        Returns:
            The labelled sample, of at most `max_length` tokens.

        Raises:
            ConfigError: With `split_turns`, the example has several turns that train.
            SampleError: The example is at fault. A sample that is too long raises
                `SampleTooLongError` even with `on_overlong="drop"`; calling the collator drops it.
        """
        self._current_tools()
        with untraced():
            return finished(self._steps(example))

    @final
    def encode_all(self, example: object) -> list[EncodedSample]:
        """Encodes all samples of one example: one, or with `split_turns` one for each turn.

        Their media is decoded once, and processed once if the family's joins can cut it.

        Args:
            example: A conversation in any form that `read_example` reads.

        Returns:
            The labelled samples, each of at most `max_length` tokens.

        Raises:
            SampleError: As in `encode`.
        """
        with untraced():
            return [encode() for encode in self.turn_encoders(example)]

    @final
    def encode_kept(self, example: object) -> list[EncodedSample]:
        """Encodes one example, and drops samples that are too long if that is the policy."""
        with untraced():
            return finished(self.encode_in_steps(example))

    @final
    def explain(self, example: object) -> Explanation:
        """Encodes one example and keeps the reasons: each token's origin, and what trains.

        Args:
            example: A conversation in any form that `read_example` reads.

        Returns:
            The sample that `encode` returns, with its tokens, media, times and warnings.

        Raises:
            SampleError: As in `encode`.
        """
        self._current_tools()
        return self.explained(lambda: finished(self._steps(example)))

    @final
    def explain_all(self, example: object) -> list[Explanation]:
        """Explains all samples of one example, as `encode_all` returns them.

        Args:
            example: A conversation in any form that `read_example` reads.

        Raises:
            SampleError: As in `encode`.
        """
        return [self.explained(encode) for encode in self.turn_encoders(example)]

    @final
    def explained(self, encode: Callable[[], EncodedSample]) -> Explanation:
        """Explains the sample that one of the functions of `turn_encoders` returns.

        Args:
            encode: The function.

        Raises:
            SampleError: As in `encode`.
        """
        with Trace() as trace:
            sample = encode()
        return Explanation.of(
            sample,
            trace,
            processor=self.processor,
            stop_ids=self.stop_ids,
            collator=type(self).__name__,
            encoder=self.prompt_encoder,
            reasoning_forms=self._tools.reasoning_forms,
            may_end=partial(may_end, self._render),
        )
