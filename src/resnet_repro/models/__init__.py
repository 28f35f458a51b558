"""The paper's nets: CIFAR and ImageNet family, shortcuts A, B, C, plain, and a gated baseline.

``spec.NetSpec`` chooses and names a net without torch, so this file imports nothing;
``build.build`` makes it.
"""
