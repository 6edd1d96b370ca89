"""Diffusion processes, samplers and objectives: tensors and time only, no audio, no images, no networks."""
