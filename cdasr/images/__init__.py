"""Images: data sets, degradations, the signal process over pixels, and the pipeline around a frozen classifier."""
