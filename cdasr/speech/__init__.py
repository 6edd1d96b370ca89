"""The speech layer: audio files, spectrograms, degradations, manifests, metrics."""
