"""Disturb real runs and count what survives: ``make reliability``.

Each part (``reliability.__main__.PARTS``) is a series of trials. A trial disturbs a small real run
in one way, reruns it until it ends, and compares the result with an undisturbed run, bit for bit.
Results go to ``results/reliability/<part>.json``, trial by trial: a part can be interrupted and
continued.
"""
