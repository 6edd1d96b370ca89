"""The frozen classifiers: a waveform or an image goes in, `Logits` come out, and no weight ever changes."""
