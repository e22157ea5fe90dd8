"""Random input of all kinds: each case has to end in a trained step or in one clear sentence, and nothing may be lost,
misread or believed that should not be."""
