"""A Whisper of the real classes, small and with random weights, with its own tokenizer: nothing is fetched."""

from __future__ import annotations

import json
import os
from pathlib import Path
from string import ascii_lowercase

SEED = 13  # of weights that hear something else in each of the waveforms of `speech`
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>",
           "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")


def make_whisper(folder: str | os.PathLike, seconds: int = 2, alignment_heads: bool = True,
                 max_target_positions: int = 18, width: int = 32) -> Path:
    """Write model, generation configuration and processor to `folder` as save_pretrained does.

    Its window is `seconds`. Without `alignment_heads` it is as a model of which they are not known.
    """
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    merges = [("Ġ", "o"), ("Ġo", "n"), ("Ġon", "e"), ("Ġ", "t"), ("Ġt", "w"), ("Ġtw", "o"), ("e", "n")]
    tokens = [*ascii_lowercase, "Ġ", *("".join(pair) for pair in merges)]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    tokenizer = WhisperTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    ids = tokenizer.get_vocab()
    end = ids["<|endoftext|>"]
    torch.manual_seed(SEED)
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=width, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=20,
        max_source_positions=50 * seconds, max_target_positions=max_target_positions,
        decoder_start_token_id=ids["<|startoftranscript|>"], pad_token_id=end, bos_token_id=end, eos_token_id=end,
        tie_word_embeddings=False)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():  # livelier than an initialisation for training: other audio, other tokens and lengths
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=1.5 if "embed" in name else 1.5 * parameter[0].numel() ** -0.5)
        weight = model.proj_out.weight
        weight.mul_(3.0 / weight.norm(dim=1, keepdim=True))
        weight[end] *= 1.6
    model.generation_config = GenerationConfig(
        decoder_start_token_id=ids["<|startoftranscript|>"], pad_token_id=end, bos_token_id=end, eos_token_id=end,
        is_multilingual=True, lang_to_id={f"<|{name}|>": ids[f"<|{name}|>"] for name in ("en", "de")},
        task_to_id={name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")}, language="en",
        task="transcribe", no_timestamps_token_id=ids["<|notimestamps|>"], max_length=max_target_positions,
        suppress_tokens=[ids["x"], *(ids[token] for token in SPECIAL[1:])],
        begin_suppress_tokens=[ids["Ġ"], end], **({"alignment_heads": [[0, 1], [1, 0]]} if alignment_heads else {}))
    model.save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=20, chunk_length=seconds)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder
