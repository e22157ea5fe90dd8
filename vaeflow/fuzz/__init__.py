"""Random configs, damaged checkpoints and odd data: each has to end in a trained step or in one clear sentence."""
