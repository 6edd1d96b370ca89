"""Recipes: the stages that all share, the runner, hyper-parameters, downloads, and `cdasr new-recipe`."""
