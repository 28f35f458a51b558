"""The pages of this repository: what its runs gave (README, RESULTS, FIDELITY), and its keys."""
