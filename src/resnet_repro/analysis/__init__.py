"""Figures, tables and claims as functions of run folders and the paper's numbers.

Imports numpy, pandas, matplotlib, scipy and the reader of :mod:`resnet_repro.runs`; never torch.
"""
