"""The pages of this repository that say what its runs gave: README, RESULTS and FIDELITY."""
