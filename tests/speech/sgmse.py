"""Hyper-parameters as public SGMSE checkpoints of both generations have them."""

SMALL = {"nf": 8, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "attn_resolutions": [16]}
STFT = {"n_fft": 126, "hop_length": 32, "window": "hann", "spec_factor": 0.15, "spec_abs_exponent": 0.5,
        "transform_type": "exponent", "normalize": "noisy", "image_size": 64, "num_frames": 256}
V2 = {"backbone": "ncsnpp_v2", "sde": "ouve", "theta": 1.5, "sigma_min": 0.05, "sigma_max": 0.5, "N": 4,
      "sampler_type": "pc", "lr": 1e-4, "t_eps": 0.03, "loss_type": "score_matching", "loss_weighting": "sigma^2",
      "network_scaling": "1/sigma", "c_in": "1", "c_out": "1", "c_skip": "0", "sigma_data": 0.1, "sr": 16000,
      "base_dir": "/data/voicebank", "format": "default", **SMALL, **STFT}
V1 = {key: value for key, value in V2.items() if key not in ("loss_type", "network_scaling", "c_in", "c_out", "c_skip",
                                                             "N", "sampler_type", "sr")}
V1 |= {"backbone": "ncsnpp", "sde_n": 1000, "loss_type": "mse", "centered": True}
BRIDGE = {**V2, "sde": "sbve", "k": 2.6, "c": 0.4, "eps": 1e-8, "N": 3, "sampler_type": "ode",
          "loss_type": "data_prediction", "network_scaling": None}
PESQ_BRIDGE = {**BRIDGE, "pesq_weight": 5e-4, "l1_weight": 0.001}  # with the weights of that loss in the file
WIDE_BRIDGE = {**BRIDGE, "sr": 48000, "n_fft": 190, "hop_length": 48, "attn_resolutions": [0]}  # no level attends
EARS = {**V1, "backbone": "ncsnpp_48k", "attn_resolutions": [], "progressive": "none", "progressive_input": "none",
        "theta": 2.0, "sigma_min": 0.1, "sigma_max": 1.0, "spec_factor": 0.065, "spec_abs_exponent": 0.667}
