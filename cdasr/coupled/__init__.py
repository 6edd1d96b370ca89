"""What both domains share between the diffusion core and the user: domain, models, their run, packages, pipeline."""
