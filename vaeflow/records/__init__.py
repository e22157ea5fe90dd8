"""What a run leaves on disk, and how it is found again: checkpoints, curves, what made it, which data it was of."""
