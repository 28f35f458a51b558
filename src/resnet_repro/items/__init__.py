"""The figures and tables of the paper, one file each.

A file holds all of one item: which nets it shows, how it is drawn, what its caption says. It uses
the vocabulary of :mod:`resnet_repro.analysis` (curves, tables, the paper's numbers) and no other
item. :mod:`resnet_repro.items.registry` lists them; :mod:`resnet_repro.items.command` draws one
from the command line.
"""
