"""Doing bad things to real runs and counting what survives: ``python -m reliability``.

Each part (:data:`reliability.parts.PARTS`) is a series of trials. A trial hurts a
small real run in one way, says the run again until it ends, and holds the result against a run that
nothing disturbed, bit for bit. What was found goes to ``results/reliability/<part>.json``, trial by
trial, so that a part can be interrupted and continued.
"""
