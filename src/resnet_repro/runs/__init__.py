"""The run folder: writer and reader in one place; needs neither torch nor Hydra."""
