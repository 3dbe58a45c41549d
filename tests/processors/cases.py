"""How each processor class of transformers is tried, independently of its collator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import pytest
import transformers as hf
from PIL import Image

from tests.conftest import NIGHTLY
from tests.processors import (
    cohere,
    gemma,
    glm,
    idefics,
    llama,
    llava,
    other_families,
    qwen,
    shared,
)
from tests.processors import remote_code_stand_ins as remote_code
from tests.processors.chatml_stand_ins import stand_in, without_template
from tests.processors.llava import CLIP, LLAVA, TILES
from vlmcollate import BaseCollator, collator_for
from vlmcollate.models import COLLATORS

PUBLISHED = "published template"
STAND_IN = "stand-in template"
STAND_IN_CODE = "stand-in processor"

IMAGE = ("image",)
IMAGE_VIDEO = ("image", "video")
IMAGE_AUDIO = ("image", "audio")
ALL = ("image", "video", "audio")
AUDIO = ("audio",)
ONE_AUDIO = {"audio": 1}

_TILES = {**CLIP, **TILES}


@attrs.frozen(kw_only=True)
class Case:
    """How a processor class is tried.

    Attributes:
        build: Builds the processor; `None` if it cannot be built offline.
        kinds: The kinds of media that it takes.
        shown_on: The source of its template or its code.
        stop: The token that ends a turn.
        before: The text between the generation prompt and the text of an answer.
        trims: Whether the template strips the text of a message.
        options: Options that the collator needs.
        most: The maximum number of items of a kind in one message; default 2.
        error: A part of the error for each kind that is refused, and under "" for all kinds.
        note: The table's note.
    """

    build: Callable[[], Any] | None
    kinds: tuple[str, ...] = IMAGE
    shown_on: str = STAND_IN
    stop: str = "<|im_end|>"
    before: str = ""
    trims: bool = False
    options: Mapping[str, Any] = attrs.field(factory=dict)
    most: Mapping[str, int] = attrs.field(factory=dict)
    error: Mapping[str, str] = attrs.field(factory=dict)
    note: str = ""

    def processor(self) -> Any:
        """Returns the processor, built once a run; no test may change it."""
        assert self.build is not None
        return shared(self.build)


def _ending(build: Callable[[], Any], eos: str) -> Callable[[], Any]:
    """Sets the eos token of the family's published tokenizer."""

    def built() -> Any:
        processor = build()
        processor.tokenizer.eos_token = eos
        return processor

    return built


_GLM_OPTIONS = {"template_kwargs": {"enable_thinking": False}}
_COHERE_END = "<|END_OF_TURN_TOKEN|>"
_CHANGES = "changes the prompt around"
_ITS_OWN = "it changes the prompt around its placeholders"
_EQUAL_VIDEOS = "all videos of a batch need the same number of frames"
_TORCHAUDIO = "its processor requires torchaudio"


def _untemplated(name: str, part: str, kinds: tuple[str, ...] = IMAGE) -> Case:
    return Case(
        build=lambda: without_template(name, getattr(hf, part)()),
        kinds=kinds,
        error={"": "has no chat template"},
        note="its model has no chat template",
    )


def _batch_dependent_audio(name: str, part: str, **options: Any) -> Case:
    return Case(
        build=lambda: stand_in(name, getattr(hf, part)(**options)),
        kinds=AUDIO,
        most=ONE_AUDIO,
        error={"audio": "'input_features'"},
        note="the features of its audio depend on the batch",
    )


CASES: dict[str, Case] = {
    # ---- with a collator of their own
    "Gemma3Processor": Case(
        build=gemma.gemma3, shown_on=PUBLISHED, stop="<end_of_turn>", trims=True
    ),
    "Gemma3nProcessor": Case(build=gemma.gemma3n, kinds=IMAGE_AUDIO, stop="<end_of_turn>"),
    "Gemma4Processor": Case(
        build=gemma.gemma4, kinds=ALL, shown_on=PUBLISHED, stop="<turn|>", trims=True
    ),
    "Gemma4UnifiedProcessor": Case(
        build=gemma.gemma4_unified, kinds=ALL, shown_on=STAND_IN, stop="<turn|>", trims=True
    ),
    "Glm4vProcessor": Case(
        build=glm.glm4v,
        kinds=IMAGE_VIDEO,
        stop="<|user|>",
        trims=True,
        options=_GLM_OPTIONS,
        note='template_kwargs={"enable_thinking": False}, or the empty thinking block trains',
    ),
    "Glm46VProcessor": Case(
        build=glm.glm46v,
        kinds=IMAGE_VIDEO,
        stop="<|user|>",
        trims=True,
        options=_GLM_OPTIONS,
        note='template_kwargs={"enable_thinking": False}, or the empty thinking block trains',
    ),
    "Idefics3Processor": Case(
        build=idefics.idefics3, shown_on=PUBLISHED, stop="<end_of_utterance>", before=" "
    ),
    "KimiK25Processor": Case(
        build=remote_code.kimi_k25_remote_stand_in,
        shown_on=STAND_IN_CODE,
        note="remote code; transformers' own class takes videos, too",
    ),
    "KimiVLProcessor": Case(
        build=remote_code.kimi_vl_stand_in, shown_on=STAND_IN_CODE, note="remote code"
    ),
    "Kimi_K25Processor": Case(build=other_families.kimi_k25, kinds=IMAGE_VIDEO),
    "LlavaOnevisionProcessor": Case(
        build=llava.llava_onevision,
        kinds=IMAGE_VIDEO,
        note=_EQUAL_VIDEOS,
    ),
    "MllamaProcessor": Case(build=llama.mllama, stop="<|eot_id|>"),
    "Molmo2Processor": Case(
        build=other_families.molmo2,
        kinds=IMAGE_VIDEO,
        most={"video": 1},
        note="one video per sample",
    ),
    "NemotronH_Omni_Reasoning_V3Processor": Case(build=other_families.nemotron_omni, kinds=ALL),
    "NemotronParseProcessor": Case(
        build=remote_code.nemotron_parse_stand_in,
        shown_on=STAND_IN_CODE,
        stop="</s>",
        most={"image": 1},
        note="remote code; one page and its text",
    ),
    "PaliGemmaProcessor": Case(
        build=_ending(gemma.paligemma, "<eos>"),
        stop="<eos>",
        note="no chat template; one prompt and one answer",
    ),
    "Phi4MMProcessor": Case(
        build=remote_code.phi4mm_stand_in,
        kinds=IMAGE_AUDIO,
        shown_on=STAND_IN_CODE,
        stop="<|end|>",
        note="remote code",
    ),
    "Phi4MultimodalProcessor": Case(
        build=other_families.phi4_multimodal, kinds=IMAGE_AUDIO, stop="<|end|>"
    ),
    "Qwen2VLProcessor": Case(build=qwen.qwen2_vl, kinds=IMAGE_VIDEO, shown_on=PUBLISHED),
    "Qwen2_5OmniProcessor": Case(build=qwen.qwen2_5_omni, kinds=ALL),
    "Qwen2_5_VLProcessor": Case(build=qwen.qwen2_5_vl, kinds=IMAGE_VIDEO, shown_on=PUBLISHED),
    "Qwen3OmniMoeProcessor": Case(build=qwen.qwen3_omni, kinds=ALL),
    "Qwen3VLProcessor": Case(build=qwen.qwen3_vl, kinds=IMAGE_VIDEO, shown_on=PUBLISHED),
    "SmolVLMProcessor": Case(
        build=idefics.smolvlm,
        kinds=IMAGE_VIDEO,
        shown_on=PUBLISHED,
        stop="<end_of_utterance>",
        before=" ",
        note="images or videos in a conversation, not both",
    ),
    # ---- by the default collator
    "Apertus1p5Processor": Case(
        build=lambda: stand_in(
            "Apertus1p5Processor",
            hf.Apertus1p5ImageProcessor(),
            hf.WavTokenizerFeatureExtractor(),
        ),
        kinds=IMAGE_AUDIO,
    ),
    "AriaProcessor": Case(build=lambda: stand_in("AriaProcessor", hf.AriaImageProcessor())),
    "AyaVisionProcessor": Case(build=_ending(cohere.aya_vision, _COHERE_END), stop=_COHERE_END),
    "Cohere2VisionProcessor": Case(
        build=_ending(cohere.cohere2_vision, _COHERE_END), stop=_COHERE_END
    ),
    "CohereCompassProcessor": Case(
        build=lambda: stand_in(
            "CohereCompassProcessor",
            hf.CohereCompassImageProcessor(),
            hf.CohereCompassVideoProcessor(),
            names={"image_token": "<|IMAGE_PAD|>", "video_token": "<|VIDEO_PAD|>"},
        ),
        kinds=IMAGE_VIDEO,
    ),
    "Cosmos3EdgeProcessor": Case(
        build=lambda: stand_in(
            "Cosmos3EdgeProcessor",
            hf.Cosmos3EdgeImageProcessor(),
            hf.Cosmos3EdgeVideoProcessor(),
            template=(
                "<vision_start><image><vision_end>",
                "<vision_start><video><vision_end>",
                "",
            ),
        ),
        kinds=IMAGE_VIDEO,
        error={"video": _CHANGES},
        note=f"no videos: {_ITS_OWN}",
    ),
    "DeepseekOcr2Processor": Case(
        build=lambda: stand_in("DeepseekOcr2Processor", hf.DeepseekOcr2ImageProcessor())
    ),
    "DeepseekVLHybridProcessor": Case(
        build=lambda: stand_in("DeepseekVLHybridProcessor", hf.DeepseekVLHybridImageProcessor())
    ),
    "DeepseekVLProcessor": Case(
        build=lambda: stand_in("DeepseekVLProcessor", hf.DeepseekVLImageProcessor())
    ),
    "Dots3NoteProcessor": Case(
        build=lambda: stand_in(
            "Dots3NoteProcessor",
            hf.Qwen2VLImageProcessor(),
            hf.Qwen3VLVideoProcessor(),
            hf.Dots3NoteFeatureExtractor(),
        ),
        kinds=ALL,
        error={"audio": "'input_features'"},
        note="no audio: its features depend on the batch",
    ),
    "Exaone4_5_Processor": Case(
        build=lambda: stand_in(
            "Exaone4_5_Processor", hf.Qwen2VLImageProcessor(), hf.Qwen2VLVideoProcessor()
        ),
        kinds=IMAGE_VIDEO,
    ),
    "Glm5NextProcessor": Case(
        build=lambda: stand_in(
            "Glm5NextProcessor", hf.Glm5NextImageProcessor(), hf.Glm5NextVideoProcessor()
        ),
        kinds=IMAGE_VIDEO,
    ),
    "Granite4VisionProcessor": Case(
        build=lambda: stand_in(
            "Granite4VisionProcessor", hf.LlavaNextImageProcessor(**_TILES), **LLAVA
        )
    ),
    "GraniteDoclingProcessor": Case(
        build=lambda: stand_in(
            "GraniteDoclingProcessor", hf.GraniteDoclingImageProcessor(max_patches=2)
        )
    ),
    "HYV4VLProcessor": Case(
        build=lambda: stand_in(
            "HYV4VLProcessor", hf.HYV4VLImageProcessor(), hf.HYV4VLVideoProcessor()
        ),
        kinds=IMAGE_VIDEO,
    ),
    "HyperCLOVAXVisionV2Processor": Case(
        build=lambda: stand_in(
            "HyperCLOVAXVisionV2Processor",
            hf.Qwen2VLImageProcessor(),
            hf.Qwen2VLVideoProcessor(),
            template=("<image>", "<|video_duration|><video>", ""),
        ),
        kinds=IMAGE_VIDEO,
        error={"video": _CHANGES},
        note=f"no videos: {_ITS_OWN}",
    ),
    "Inkling2Processor": Case(
        build=lambda: stand_in("Inkling2Processor", hf.Inkling2ImageProcessor())
    ),
    "InklingProcessor": Case(
        build=other_families.inkling,
        kinds=IMAGE_AUDIO,
    ),
    "InternVLProcessor": Case(build=other_families.internvl, kinds=IMAGE_VIDEO),
    "JanusProcessor": Case(build=lambda: stand_in("JanusProcessor", hf.JanusImageProcessor())),
    "Lfm2VlProcessor": Case(build=other_families.lfm2_vl),
    "Lfm3VlProcessor": Case(
        build=lambda: stand_in(
            "Lfm3VlProcessor", hf.Qwen2VLImageProcessor(), hf.Qwen3VLVideoProcessor()
        ),
        kinds=IMAGE_VIDEO,
    ),
    "LightOnOcrProcessor": Case(
        build=lambda: stand_in("LightOnOcrProcessor", hf.PixtralImageProcessor())
    ),
    "Llama4Processor": Case(build=_ending(llama.llama4, "<|eot|>"), stop="<|eot|>"),
    "LlavaNextProcessor": Case(
        build=_ending(llava.llava_next, "</s>"), shown_on=PUBLISHED, stop="</s>", before=" "
    ),
    "LlavaNextVideoProcessor": Case(
        build=lambda: stand_in(
            "LlavaNextVideoProcessor",
            hf.LlavaNextImageProcessor(**_TILES),
            hf.LlavaNextVideoVideoProcessor(**CLIP),
            **LLAVA,
        ),
        kinds=IMAGE_VIDEO,
    ),
    "LlavaProcessor": Case(
        build=_ending(llava.llava, "</s>"),
        stop="</s>",
        before=" ",
        note="if the template ends no answer, the eos token is appended to each",
    ),
    "MiniMaxM3VLProcessor": Case(
        build=other_families.minimax_m3_vl,
        kinds=IMAGE_VIDEO,
        note="the height and width of videos must be multiples of 28",
    ),
    "MuseGlimmerProcessor": Case(
        build=lambda: stand_in(
            "MuseGlimmerProcessor", hf.MuseGlimmerImageProcessor(), hf.MuseGlimmerVideoProcessor()
        ),
        kinds=IMAGE_VIDEO,
    ),
    "MuseSparkProcessor": Case(
        build=lambda: stand_in(
            "MuseSparkProcessor",
            hf.MuseGlimmerImageProcessor(),
            hf.MuseGlimmerVideoProcessor(),
            hf.MuseSparkFeatureExtractor(),
        ),
        kinds=ALL,
    ),
    "Nemotron3_5TranscribeProcessor": Case(
        build=lambda: stand_in(
            "Nemotron3_5TranscribeProcessor", hf.NemotronAsrStreamingFeatureExtractor()
        ),
        kinds=AUDIO,
        most=ONE_AUDIO,
        note="one audio clip per sample",
    ),
    "Ovis2Processor": Case(build=other_families.ovis2),
    "OmniASRProcessor": Case(
        build=lambda: stand_in(
            "OmniASRProcessor", hf.OmniASRFeatureExtractor(), audio_token="<audio>"
        ),
        kinds=AUDIO,
        most=ONE_AUDIO,
        note="one audio clip per sample",
    ),
    "PaddleOCRVLProcessor": Case(
        build=lambda: stand_in("PaddleOCRVLProcessor", hf.PaddleOCRVLImageProcessor())
    ),
    "PixtralProcessor": Case(build=_ending(llava.pixtral, "</s>"), stop="</s>"),
    "Qwen2AudioProcessor": Case(
        build=lambda: stand_in(
            "Qwen2AudioProcessor", hf.WhisperFeatureExtractor(feature_size=128, chunk_length=30)
        ),
        kinds=AUDIO,
    ),
    "Step3p7Processor": Case(build=other_families.step3p7),
    "UnlimitedOcrProcessor": Case(
        build=lambda: stand_in("UnlimitedOcrProcessor", hf.UnlimitedOcrImageProcessor())
    ),
    "VideoLlama3Processor": Case(
        build=lambda: stand_in(
            "VideoLlama3Processor", hf.VideoLlama3ImageProcessor(), hf.VideoLlama3VideoProcessor()
        ),
        kinds=IMAGE_VIDEO,
    ),
    "VideoLlavaProcessor": Case(
        build=lambda: stand_in(
            "VideoLlavaProcessor", hf.VideoLlavaImageProcessor(), hf.VideoLlavaVideoProcessor()
        ),
        kinds=IMAGE_VIDEO,
        note=_EQUAL_VIDEOS,
    ),
    # ---- refused
    "AudioFlamingo3Processor": _batch_dependent_audio(
        "AudioFlamingo3Processor", "WhisperFeatureExtractor", feature_size=128
    ),
    "Blip2Processor": _untemplated("Blip2Processor", "BlipImageProcessor"),
    "BlipProcessor": _untemplated("BlipProcessor", "BlipImageProcessor"),
    "CanaryProcessor": Case(
        build=lambda: stand_in("CanaryProcessor", hf.ParakeetFeatureExtractor()),
        kinds=AUDIO,
        error={"audio": "takes no audio"},
        note="its audio has no placeholder in the prompt",
    ),
    "ChameleonProcessor": _untemplated("ChameleonProcessor", "ChameleonImageProcessor"),
    "CohereAsrProcessor": _untemplated("CohereAsrProcessor", "CohereAsrFeatureExtractor", AUDIO),
    "DonutProcessor": _untemplated("DonutProcessor", "DonutImageProcessor"),
    "Emu3Processor": Case(
        build=lambda: stand_in("Emu3Processor", hf.Emu3ImageProcessor()),
        error={"image": _CHANGES},
        note=_ITS_OWN,
    ),
    "Ernie4_5_VLMoeProcessor": Case(
        build=lambda: stand_in(
            "Ernie4_5_VLMoeProcessor",
            hf.Ernie4_5_VLMoeImageProcessor(),
            hf.Ernie4_5_VLMoeVideoProcessor(),
        ),
        kinds=IMAGE_VIDEO,
        error={"": "moe_mm_token_type_ids|cannot open resource"},
        note="its token types have a separate key",
    ),
    "Florence2Processor": _untemplated("Florence2Processor", "CLIPImageProcessor"),
    "FunAsrNanoProcessor": Case(build=None, kinds=AUDIO, note=_TORCHAUDIO),
    "FuyuProcessor": _untemplated("FuyuProcessor", "FuyuImageProcessor"),
    "GitProcessor": _untemplated("GitProcessor", "CLIPImageProcessor"),
    "GlmAsrProcessor": _batch_dependent_audio(
        "GlmAsrProcessor", "WhisperFeatureExtractor", feature_size=128
    ),
    "GotOcr2Processor": Case(
        build=lambda: stand_in("GotOcr2Processor", hf.GotOcr2ImageProcessor()),
        error={"image": "Nested images"},
        note="it needs its images in a different form",
    ),
    "GraniteSpeech5Processor": Case(build=None, kinds=AUDIO, note=_TORCHAUDIO),
    "GraniteSpeechProcessor": Case(build=None, kinds=AUDIO, note=_TORCHAUDIO),
    "HunYuanVLProcessor": Case(
        build=lambda: stand_in(
            "HunYuanVLProcessor",
            hf.HunYuanVLImageProcessor(),
            template=("<image_start><image><image_end>", "", ""),
        ),
        error={"image": "placeholders must be formatted"},
        note="it needs tokens around its placeholder",
    ),
    "Idefics2Processor": Case(
        build=lambda: stand_in("Idefics2Processor", hf.Idefics2ImageProcessor()),
        error={"image": _CHANGES},
        note=_ITS_OWN,
    ),
    "IdeficsProcessor": _untemplated("IdeficsProcessor", "IdeficsImageProcessor"),
    "InstructBlipProcessor": _untemplated("InstructBlipProcessor", "BlipImageProcessor"),
    "InstructBlipVideoProcessor": _untemplated(
        "InstructBlipVideoProcessor", "InstructBlipVideoVideoProcessor", ("video",)
    ),
    "Kosmos2Processor": _untemplated("Kosmos2Processor", "CLIPImageProcessor"),
    "Kosmos2_5Processor": _untemplated("Kosmos2_5Processor", "Kosmos2_5ImageProcessor"),
    "MiniCPMOcrProcessor": Case(
        build=lambda: stand_in(
            "MiniCPMOcrProcessor", hf.MiniCPMOcrImageProcessor(), hf.MiniCPMOcrVideoProcessor()
        ),
        kinds=IMAGE_VIDEO,
    ),
    "MiniCPMV4_6Processor": Case(
        build=lambda: stand_in(
            "MiniCPMV4_6Processor", hf.MiniCPMV4_6ImageProcessor(), hf.MiniCPMV4_6VideoProcessor()
        ),
        kinds=IMAGE_VIDEO,
    ),
    "MiniCPMV4_7Processor": Case(
        build=lambda: stand_in(
            "MiniCPMV4_7Processor", hf.MiniCPMV4_6ImageProcessor(), hf.MiniCPMV4_6VideoProcessor()
        ),
        kinds=IMAGE_VIDEO,
    ),
    "MossTranscribeDiarizeProcessor": Case(
        build=lambda: stand_in(
            "MossTranscribeDiarizeProcessor", hf.MossTranscribeDiarizeFeatureExtractor()
        ),
        kinds=AUDIO,
        error={"audio": "return_tensors"},
        note="it needs its arguments in a different form",
    ),
    "MusicFlamingoProcessor": _batch_dependent_audio(
        "MusicFlamingoProcessor", "WhisperFeatureExtractor", feature_size=128
    ),
    "PPChart2TableProcessor": Case(
        build=lambda: stand_in("PPChart2TableProcessor", hf.PPChart2TableImageProcessor()),
        error={"image": "takes no image"},
        note="it declares no placeholder",
    ),
    "PerceptionLMProcessor": Case(
        build=lambda: stand_in(
            "PerceptionLMProcessor",
            hf.PerceptionLMImageProcessor(tile_size=56),
            hf.PerceptionLMVideoProcessor(),
            patch_size=14,
        ),
        kinds=IMAGE_VIDEO,
        error={"": "does not take image media"},
        note="a batch cannot hold images with different numbers of tiles",
    ),
    "Pix2StructProcessor": _untemplated("Pix2StructProcessor", "Pix2StructImageProcessor"),
    "QianfanOCRProcessor": Case(
        build=lambda: stand_in(
            "QianfanOCRProcessor", hf.GotOcr2ImageProcessor(), template=("<image>", "", "")
        ),
        error={"image": "wrote placeholders for no media"},
        note="the placeholder in its template is not its image token",
    ),
    "Qwen3ASRProcessor": _batch_dependent_audio("Qwen3ASRProcessor", "Qwen3ASRFeatureExtractor"),
    "UdopProcessor": Case(build=None, note="its tokenizer cannot be built offline"),
    "VibeVoiceAsrProcessor": Case(
        build=lambda: stand_in(
            "VibeVoiceAsrProcessor",
            hf.VibeVoiceAcousticTokenizerFeatureExtractor(),
            template=("", "", "<|box_start|>, <|AUDIO_DURATION|> seconds. "),
        ),
        kinds=AUDIO,
        error={"audio": _CHANGES},
        note=_ITS_OWN,
    ),
    "VoxtralProcessor": Case(
        build=lambda: without_template(
            "VoxtralProcessor", hf.WhisperFeatureExtractor(feature_size=128)
        ),
        kinds=AUDIO,
        error={"": "has no chat template"},
        note="its prompts are rendered by mistral-common",
    ),
    "WhisperProcessor": _untemplated("WhisperProcessor", "WhisperFeatureExtractor", AUDIO),
}

SERVED = [name for name, case in CASES.items() if case.build is not None and "" not in case.error]
"""The classes that can be built here and are not refused for all kinds of media."""


def collator_of(name: str, **options: Any) -> BaseCollator:
    """Returns a collator with the options of a class; skips the test if it cannot be built."""
    case = CASES[name]
    try:
        processor = case.processor()
    except (ImportError, AttributeError) as error:
        pytest.skip(f"this transformers has no {name}: {error}")
    return collator_for(processor, **{**case.options, **options})


def message(role: str, text: str, *parts: dict[str, Any]) -> dict[str, Any]:
    """Returns a message of parts, the last of which is a text."""
    return {"role": role, "content": [*parts, {"type": "text", "text": text}]}


def image(number: int) -> dict[str, Any]:
    """Returns a part with an image, whose size and colour depend on a number from 0 to 4."""
    pixels = Image.new("RGB", (60 + 40 * number, 80), (60 * number, 20, 200))
    return {"type": "image", "image": pixels}


_CONTRASTIVE = "compares images, videos or audio with texts"
_FINDING = "finds or cuts out objects"
_TRANSCRIBING = "transcribes audio without a prompt"
_SPEAKING = "generates audio"
_DRAWING = "generates images"
_READING = "reads the layout of documents, or their text without a prompt"
_RETRIEVING = "embeds for retrieval"

LEFT_OUT: dict[str, str] = {
    "AlignProcessor": _CONTRASTIVE,
    "AltCLIPProcessor": _CONTRASTIVE,
    "BarkProcessor": _SPEAKING,
    "BridgeTowerProcessor": _CONTRASTIVE,
    "BrosProcessor": _READING,
    "CLIPProcessor": _CONTRASTIVE,
    "CLIPSegProcessor": _FINDING,
    "ChineseCLIPProcessor": _CONTRASTIVE,
    "ClapProcessor": _CONTRASTIVE,
    "ClvpProcessor": _SPEAKING,
    "ColModernVBertProcessor": _RETRIEVING,
    "ColPaliProcessor": _RETRIEVING,
    "ColQwen2Processor": _RETRIEVING,
    "CsmProcessor": _SPEAKING,
    "DiaProcessor": _SPEAKING,
    "EmbeddingGemma2Processor": _RETRIEVING,
    "EvollaProcessor": "takes proteins",
    "FlavaProcessor": _CONTRASTIVE,
    "GlmImageProcessor": _DRAWING,
    "GroundingDinoProcessor": _FINDING,
    "HiggsAudioV2Processor": _SPEAKING,
    "KyutaiSpeechToTextProcessor": _TRANSCRIBING,
    "LasrProcessor": _TRANSCRIBING,
    "LayoutLMv2Processor": _READING,
    "LayoutLMv3Processor": _READING,
    "LayoutXLMProcessor": _READING,
    "MarkupLMProcessor": _READING,
    "MgpstrProcessor": _READING,
    "MoonshineStreamingProcessor": _TRANSCRIBING,
    "MusicgenProcessor": _SPEAKING,
    "Nemotron3DiarizationProcessor": _TRANSCRIBING,
    "Nemotron3_5AsrProcessor": _TRANSCRIBING,
    "NemotronAsrStreamingProcessor": _TRANSCRIBING,
    "NeoMMEProcessor": _RETRIEVING,
    "NougatProcessor": _READING,
    "OmDetTurboProcessor": _FINDING,
    "OmniASRCTCProcessor": _TRANSCRIBING,
    "OneFormerProcessor": _FINDING,
    "OwlViTProcessor": _FINDING,
    "Owlv2Processor": _FINDING,
    "PI0Processor": "moves robots",
    "PPFormulaNetProcessor": _READING,
    "ParakeetProcessor": _TRANSCRIBING,
    "PeAudioProcessor": _CONTRASTIVE,
    "PeAudioVideoProcessor": _CONTRASTIVE,
    "PeVideoProcessor": _CONTRASTIVE,
    "PocketTTSProcessor": _SPEAKING,
    "Sam2Processor": _FINDING,
    "Sam2VideoProcessor": _FINDING,
    "Sam3Processor": _FINDING,
    "Sam3TrackerProcessor": _FINDING,
    "Sam3TrackerVideoProcessor": _FINDING,
    "Sam3VideoProcessor": _FINDING,
    "SamHQProcessor": _FINDING,
    "SamProcessor": _FINDING,
    "SeamlessM4TProcessor": _TRANSCRIBING,
    "ShieldGemma2Processor": "classifies images",
    "Siglip2Processor": _CONTRASTIVE,
    "SiglipProcessor": _CONTRASTIVE,
    "Speech2TextProcessor": _TRANSCRIBING,
    "SpeechT5Processor": _SPEAKING,
    "Tipsv2Processor": _CONTRASTIVE,
    "TrOCRProcessor": _READING,
    "TvpProcessor": _FINDING,
    "VibeVoiceProcessor": _SPEAKING,
    "VideoPrismProcessor": _CONTRASTIVE,
    "ViltProcessor": _CONTRASTIVE,
    "VisionTextDualEncoderProcessor": _CONTRASTIVE,
    "VoxtralRealtimeProcessor": _TRANSCRIBING,
    "Wav2Vec2BertProcessor": _TRANSCRIBING,
    "Wav2Vec2Processor": _TRANSCRIBING,
    "XCLIPProcessor": _CONTRASTIVE,
}
"""Classes that are not in the table, since their models generate no answer, and the reason."""


def in_turns(names: Sequence[str], turn: int, *, step: int = 2) -> list[str]:
    """Returns the classes on which a test of one mechanism is tried.

    Of those with a collator of their own, every `step`-th takes its turn, and of the others, which
    the default collator probes, every `step + 1`-th; all do in the nightly profile. Each class is
    encoded and explained by a test in every profile.
    """
    if NIGHTLY:
        return list(names)
    own = [name for name in names if name in COLLATORS]
    others = [name for name in names if name not in COLLATORS]
    taking = {*own[turn % step :: step], *others[turn :: step + 1]}
    return [name for name in names if name in taking]
