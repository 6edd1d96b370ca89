"""A small random model of each family of CTC recognisers, with its processor, as save_pretrained writes them."""

from __future__ import annotations

import json

import torch

TINY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "conv_dim": [12, 12, 12, 12, 12], "conv_kernel": [20, 8, 4, 4, 4], "conv_stride": [10, 4, 2, 2, 2],
        "num_feat_extract_layers": 5, "num_conv_pos_embedding_groups": 4, "vocab_size": 9, "pad_token_id": 0}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
POSITIONS = {"num_conv_pos_embeddings": 16}
MODELS = {
    "wav2vec2-group": ("Wav2Vec2", POSITIONS), "wav2vec2-layer": ("Wav2Vec2", {**POSITIONS, **LAYER}),
    "mms": ("Wav2Vec2", {**POSITIONS, **LAYER, "adapter_attn_dim": 6}),
    "shortened": ("Wav2Vec2", {**POSITIONS, **LAYER, "add_adapter": True, "num_adapter_layers": 2}),
    "hubert": ("Hubert", POSITIONS), "hubert-batch-norm": ("Hubert", {**POSITIONS, "conv_pos_batch_norm": True}),
    "wavlm": ("WavLM", POSITIONS), "wavlm-layer": ("WavLM", {**POSITIONS, **LAYER}),
    "data2vec": ("Data2VecAudio", {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7}),
    "conformer": ("Wav2Vec2Conformer", {**POSITIONS, "conv_depthwise_kernel_size": 7}),
    "unispeech-sat": ("UniSpeechSat", POSITIONS), "sew": ("SEW", {**POSITIONS, "squeeze_factor": 2})}


def write_processor(folder, delimiter="|", normalise=True, vocabulary=None):
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    vocabulary = vocabulary or {token: index for index, token in enumerate(
        ["<pad>", "<s>", "</s>", "<unk>", delimiter, "a", "b", "c", "'"])}
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    language = next(iter(vocabulary)) if isinstance(next(iter(vocabulary.values())), dict) else None
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), word_delimiter_token=delimiter, target_lang=language)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=False)
    Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(folder)


def write_model(folder, name, **options):
    """A random model of `MODELS` whose norms do something, with its processor."""
    import transformers

    family, settings = MODELS[name]
    model = getattr(transformers, f"{family}ForCTC")(getattr(transformers, f"{family}Config")(**TINY, **settings))
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.5)
        for module in model.modules():
            if isinstance(module, (torch.nn.GroupNorm, torch.nn.BatchNorm1d)):
                module.weight.normal_(mean=1.0)
                module.bias.normal_()
    write_processor(folder, **options)
    model.save_pretrained(folder)
    return folder
