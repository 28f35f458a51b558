"""The paper's nets: CIFAR and ImageNet family, shortcuts A, B, C, plain, and a gated baseline.

``registry.build`` makes a net, ``labels.net_label`` names it, ``rules.check_net`` says what can be
built. The last two need no torch, so this file imports nothing.
"""
