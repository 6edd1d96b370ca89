"""Training loops: SpeechBrain `Brain`s for the recogniser of a recipe and for the signal process."""
