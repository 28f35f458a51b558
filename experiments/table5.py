"""Table 5: error of ensembles."""

from resnet_repro.analysis.ensembles import save_table5
from resnet_repro.items import main

if __name__ == "__main__":
    main("table5", draw=save_table5, out="results/tables", protocol="multi-scale", together=True)
