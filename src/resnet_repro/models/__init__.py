"""The paper's nets; ``spec.NetSpec`` chooses one without torch, ``build.build`` makes it."""
