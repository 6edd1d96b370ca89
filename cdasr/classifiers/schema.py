"""What may stand in the files of a frozen classifier, and which options may be given for one.

The options are an allow-list, whoever names them: transformers' `from_pretrained` has others that run code (pickles,
`trust_remote_code`), fetch code (kernels of the hub) or load something else than what was named. So have the
configurations that it reads; those fields are refused, and fields that no model of speech reads are left out.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cdasr.runtime.plain_data import Count, Loose, Many, Size, Strict, Width

# Fields of transformers' files that lead to code, to other files or to another way of loading.
CODE = ("auto_map", "trust_remote_code", "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
        "experts_implementation", "_experts_implementation", "use_kernels", "allow_all_kernels", "kernel_config",
        "fusion_config", "quantization_config", "compression_config", "custom_generate", "custom_pipelines",
        "transformers_weights", "configuration_files", "distributed_config", "per_layer_config", "extra_files",
        "weights_only", "gguf_file")

DTYPES = ("auto", "float32", "float64", "bfloat16", "float16")
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")  # names, not hub kernels
PRIVATE = ("token", "cache_dir")  # this user's: no file names them

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Options(Strict):
    """Options of `load_recogniser`, as `checked_options` has them: without those that are None."""

    dtype: Literal[DTYPES] = "auto"
    attn_implementation: Literal[ATTENTION] = "sdpa"
    language: Annotated[str, Field(pattern=r"^[A-Za-z0-9_<|> -]{1,64}$")] = "en"
    task: Literal["transcribe", "translate"] = "transcribe"
    target_lang: Word = "eng"
    fallback: bool = True
    initial_prompt: Annotated[str, Field(min_length=1, max_length=4096)] = ""
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)*$", max_length=200)] = "main"
    variant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "fp16"
    local_files_only: bool = False
    cache_dir: str = ""
    token: bool | str = False


class Reference(Strict):
    """`recogniser.json`, and the encoder of a Whisper with a CTC head: where a model is, and the options it takes."""

    name: Annotated[str, Field(min_length=1, max_length=4096)]
    options: dict = {}


class Head(Strict):
    """Options of `CTCHead`."""

    layers: Count
    width: Size
    tokens: Width
    dim: Size = 256
    blocks: Annotated[int, Field(ge=0, le=256)] = 2
    kernel: Annotated[int, Field(ge=1, le=1023)] = 5
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1

    @model_validator(mode="after")
    def _odd(self):
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd, or the head changes the number of frames")
        return self


class WhisperCTC(Strict):
    """`config.json` of a Whisper with a CTC head."""

    model_type: Literal["whisper-ctc"]
    head: Head
    encoder: Reference | None = None
    windows: Annotated[list[Annotated[float, Field(gt=0.0, le=600.0)]], Field(max_length=16)] = []


class WaveExtractor(Loose):
    """What is read of a wav2vec2 feature extractor."""

    sampling_rate: Annotated[int, Field(ge=1000, le=384_000)] = 16_000
    do_normalize: bool = True
    feature_size: Literal[1] = 1
    padding_value: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.0
    padding_side: Literal["left", "right"] = "right"
    return_attention_mask: bool = False


class MelExtractor(Loose):
    """What is read of a Whisper feature extractor."""

    feature_size: Annotated[int, Field(ge=1, le=1024)] = 80
    sampling_rate: Annotated[int, Field(ge=1000, le=384_000)] = 16_000
    hop_length: Annotated[int, Field(ge=1, le=16_384)] = 160
    chunk_length: Annotated[int, Field(ge=1, le=600)] = 30
    n_fft: Annotated[int, Field(ge=2, le=16_384)] = 400
    padding_value: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.0
    return_attention_mask: bool = False

    @model_validator(mode="after")
    def _hop(self):
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length {self.hop_length} is longer than n_fft {self.n_fft}")
        return self


Token = Annotated[int, Field(ge=0, le=2_000_000)]
Tokens = Annotated[list[Token], Field(max_length=100_000)]
Pair = Annotated[list[Annotated[int, Field(ge=0, le=1024)]], Field(min_length=2, max_length=2)]


class Generation(Loose):
    """What greedy decoding takes from Whisper's `generation_config.json`; all that would sample or search is not."""

    bos_token_id: Token | None = None
    eos_token_id: Token | Annotated[Tokens, Field(min_length=1)]
    pad_token_id: Token | None = None
    decoder_start_token_id: Token
    suppress_tokens: Tokens | None = None
    begin_suppress_tokens: Tokens | None = None
    is_multilingual: bool | None = None
    lang_to_id: dict[str, Token] | None = None
    task_to_id: dict[str, Token] | None = None
    language: str | None = None
    task: str | None = None
    no_timestamps_token_id: Token | None = None
    prev_sot_token_id: Token | None = None
    max_initial_timestamp_index: Annotated[int, Field(ge=0, le=10_000)] | None = None
    max_length: Annotated[int, Field(ge=2, le=10_000)] = 448
    alignment_heads: Annotated[list[Pair], Field(max_length=10_000)] | None = None  # layer and head


# -- images -----------------------------------------------------------------------------------------------------------


class Architecture(Strict):
    """`small_resnet`, or a classifier of torchvision or timm with the options of its size that a package may name."""

    name: Annotated[str, Field(pattern=r"^(timm/)?[A-Za-z0-9_.]{1,100}$")]
    small_images: bool = False
    widths: Many[Size] = [1]
    blocks: Annotated[int, Field(ge=1, le=256)] = 1
    groups: Annotated[int, Field(ge=1, le=1024)] = 1
    width_per_group: Size = 64
    width_mult: Annotated[float, Field(ge=0.01, le=100.0)] = 1.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    drop_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    image_size: Annotated[int, Field(ge=1, le=4096)] = 224
    img_size: Annotated[int, Field(ge=1, le=4096)] = 224
    aux_logits: bool = False
    transform_input: bool = False
    init_weights: bool = False


Channel = Annotated[float, Field(ge=-1000.0, le=1000.0)]


class Image(Strict):
    """`config.json` of an image classifier."""

    architecture: Architecture | Annotated[str, Field(pattern=r"^(timm/)?[A-Za-z0-9_.]{1,100}$")]
    classes: Annotated[list[str], Field(min_length=1, max_length=100_000)]
    mean: Annotated[list[Channel], Field(min_length=1, max_length=3)]
    std: Annotated[list[Annotated[Channel, Field(gt=0.0)]], Field(min_length=1, max_length=3)]
    size: Annotated[int, Field(ge=1, le=4096)] | None = None

    @model_validator(mode="after")
    def _channels(self):
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise ValueError(f"mean and std are of 1 or 3 channels, got {len(self.mean)} and {len(self.std)}")
        return self
