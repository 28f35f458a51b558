"""Table 5: error of ensembles."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("table5")
