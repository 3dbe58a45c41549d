"""A real tokenizer, trained on the spot on a page of text."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_VOCABULARY = 1200

_TEXT = """\
Look at the picture and tell me what you see. What colour is the circle? The circle is red.
Which shape is on the left, and which one is on the right? A blue square stands left of a green
triangle. How many shapes are there? There are two shapes: one yellow star and one purple circle.
You are a helpful assistant who answers questions about pictures. Describe this image in one short
sentence, please. The image shows an orange triangle on a white background. Is that right? Yes, it
is. No, it is not: the square is larger than the circle, and it lies below the other shape.
system user assistant tool message content answer question image video picture chart table page
A chart compares the sales of three years; the tallest bar belongs to the last of them. The table
lists names, dates and prices. The page is a receipt from a cafe, and its total is 12.50 dollars.
Read the text in the photo: "Open from 9 to 17, Monday to Friday." I cannot read the second line.
First, I compare both pictures. They differ in colour, in size and in the number of objects.
The dog sleeps under the table while the cat watches a bird through the window of the kitchen.
def area(width, height): return width * height  # the area of a rectangle in square metres
{"name": "count", "arguments": {"shape": "circle", "colour": "red"}}  0 1 2 3 4 5 6 7 8 9
Wie viele Kreise siehst du? Drei, und alle sind grün. Où est le carré ? Il est à gauche.
What would change if the light came from above? Every shadow would fall straight down.
Repeat after me: "The circle is red." I would rather say what I see: the circle is blue.
The map marks a station, a bridge and two museums along the river; a dotted line joins them.
Children play football behind the school, and somebody has parked a bicycle against the fence.
Snow covers the mountains, but flowers already bloom in front of the small wooden houses.
The screenshot shows a form with fields for an address, a phone number and a password.
Press the button labelled "Continue" in order to submit your application before Wednesday.
Compute 3 + 4 * 5 = 23, then divide by 2: 11.5. The result is greater than ten percent of 100.
Both curves start at zero; only the dashed one grows exponentially after about six minutes.
An elderly woman wearing glasses holds an umbrella next to her husband, who carries a suitcase.
Breakfast: bread, butter, cheese, eggs, coffee with milk, orange juice and a bowl of cherries.
import json; print([item["name"] for item in json.load(open("objects.json")) if item["visible"]])
Please translate the handwriting into English, explain every abbreviation, and keep the layout.
Ein gelber Stern liegt zwischen zwei violetten Vierecken. Une étoile jaune entre deux carrés.
Without more context nobody could say whether this photograph was taken at sunrise or at sunset.
The engine diagram names eleven components: valve, piston, spark plug, cylinder, crankshaft,
camshaft, pump, filter, belt, radiator and exhaust. Arrows indicate which direction air flows.
Twelve passengers wait on platform seven because their express train has been delayed again.
Thanks! You are welcome. Anything else? Hello, good morning, and goodbye until next time.
"""


def tiny_tokenizer(special_tokens: tuple[str, ...], *, eos: str, pad: str, **named: str) -> Any:
    """Trains a byte-level BPE tokenizer on the text above.

    Args:
        special_tokens: The control tokens, which get the first ids.
        eos: The one that ends a text.
        pad: The one that pads.
        **named: Those that the processor asks the tokenizer for, such as `image_token`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT.splitlines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=eos,
        pad_token=pad,
        additional_special_tokens=[t for t in special_tokens if t not in (eos, pad)],
        extra_special_tokens=named,
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
    )
