"""The verbs of the `cdasr` command: how each is called, and which function of the package it calls.

A module has one group of verbs. Each verb is a pair: `add_VERB` fills in its parser, and the function that it names
runs it. Nothing heavy is imported before it is needed, so that `cdasr --help` is fast.
"""
