"""What speech and images share between the diffusion core and the user: both models, their run, packages, the pipeline."""
