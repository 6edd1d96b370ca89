"""Folders as SpeechBrain publishes its enhancers: names of files, `hyperparams.yaml` with its tags, weights.

Only the sizes differ, where SpeechBrain's classes let them: the settings' form is that of the published files.
"""

from __future__ import annotations

from pathlib import Path

import torch

PRETRAINER = "pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer\n    loadables:\n"
STFT = "sample_rate: 16000\nwin_length: 32\nhop_length: 16\nn_fft: 512\n"
METRICGAN = f"""# STFT parameters
{STFT}window_fn: !name:torch.hamming_window
compute_stft: !new:speechbrain.processing.features.STFT
    sample_rate: !ref <sample_rate>
    n_fft: !ref <n_fft>
    window_fn: !ref <window_fn>
enhance_model: !new:speechbrain.lobes.models.MetricGAN.EnhancementGenerator
    input_size: !ref <n_fft> // 2 + 1
    hidden_size: 200
modules:
    enhance_model: !ref <enhance_model>
{PRETRAINER}        enhance_model: !ref <enhance_model>
"""
MIMIC = f"""sample_rate: 16000
n_fft: 128
win_length: 8
hop_length: 4
mask_weight: 0.9
enhance_model: !new:speechbrain.lobes.models.EnhanceResnet.EnhanceResnet
    n_fft: !ref <n_fft>
    win_length: !ref <win_length>
    hop_length: !ref <hop_length>
    sample_rate: !ref <sample_rate>
    channel_counts: [4, 8]
    normalization: !name:speechbrain.nnet.normalization.BatchNorm2d
    activation: !new:torch.nn.GELU
    dense_count: 2
    dense_nodes: 16
    dropout: 0.1
    mask_weight: !ref <mask_weight>
{PRETRAINER}        enhance_model: !ref <enhance_model>
"""
SEPFORMER = f"""num_spks: 1 # set to 3 for wsj0-3mix
sample_rate: 16000
Encoder: !new:speechbrain.lobes.models.dual_path.Encoder
    kernel_size: 16
    out_channels: 16
SBtfintra: &id001 !new:speechbrain.lobes.models.dual_path.SBTransformerBlock
    num_layers: 2
    d_model: 16
    nhead: 4
    d_ffn: 32
    dropout: 0
    use_positional_encoding: true
    norm_before: true
MaskNet: !new:speechbrain.lobes.models.dual_path.Dual_Path_Model
    num_spks: 1
    in_channels: 16
    out_channels: 16
    num_layers: 2
    K: 50
    intra_model: *id001
    norm: ln
    linear_layer_after_inter_intra: false
    skip_around_intra: true
{PRETRAINER}        encoder: !ref <Encoder>
"""
SCORE = f"""sample_rate: 16000
n_fft: 126
hop_length: 32
window_type: hann
transform_type: exponent
spec_factor: 0.15
spec_abs_exponent: 0.5
sampling:
  sampler_type: pc
  predictor: reverse_diffusion
  corrector: ald
  N: 3
  corrector_steps: 1
  snr: 0.4
modules:
  score_model: !new:speechbrain.integrations.models.sgmse_plus.ScoreModel
    backbone: ncsnpp_v2
    sde: ouve
    theta: 1.5
    sigma_min: 0.05
    sigma_max: 0.5
    t_eps: 0.03
    loss_type: score_matching
    network_scaling: 1/t
    c_in: '1'
    c_out: '1'
    c_skip: '0'
    sigma_data: 0.1
    N: 30
    sampler_type: pc
    sr: 16000
    image_size: 64
    nf: 8
    ch_mult: [1, 1, 2]
    num_res_blocks: 1
    attn_resolutions: [16]
{PRETRAINER}     score_model_ema: !ref <modules[score_model]>
"""


def folder_of(folder: Path, settings: str, **modules) -> Path:
    """A folder with these settings and weights of modules or state dicts, as SpeechBrain's checkpointer saves them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hyperparams.yaml").write_text(settings)
    for name, module in modules.items():
        weights = module.state_dict() if isinstance(module, torch.nn.Module) else module
        torch.save(weights, folder / f"{name}.ckpt")
    return folder


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """The module for inference, with running averages that are not those of a fresh one."""
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, 0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        elif name.endswith("num_batches_tracked"):
            buffer.fill_(200_000)
    return module.eval()


def metricgan(folder: Path):
    """Folder, and SpeechBrain's own inference class around the same weights."""
    from speechbrain.lobes.models.MetricGAN import EnhancementGenerator

    model = randomised(EnhancementGenerator())
    return folder_of(folder, METRICGAN, enhance_model=model), model


def mimic(folder: Path):
    from speechbrain.lobes.models.EnhanceResnet import EnhanceResnet

    model = randomised(EnhanceResnet(128, 8, 4, 16000, [4, 8], 2, 16, mask_weight=0.9))
    return folder_of(folder, MIMIC, enhance_model=model), model


def sepformer(folder: Path):
    from speechbrain.lobes.models.dual_path import Decoder, Dual_Path_Model, Encoder, SBTransformerBlock

    block = [SBTransformerBlock(2, 16, 4, 32, dropout=0, use_positional_encoding=True, norm_before=True)
             for _ in range(2)]
    parts = {"encoder": Encoder(16, 16), "masknet": Dual_Path_Model(16, 16, *block, 2, "ln", 50, 1, True, False),
             "decoder": Decoder(16, 1, kernel_size=16, stride=8, bias=False)}
    model = randomised(torch.nn.ModuleDict(parts))
    return folder_of(folder, SEPFORMER, **parts), model
