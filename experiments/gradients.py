"""Gradient norms through training and the forward signal at initialisation (Sec. 4.1).

The paper says that gradients of its plain nets are healthy; here they are shown.
"""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("gradients")
