"""Say what more devices would bring, from what a step and an all-reduce take here."""

from vaeflow.commands import scaling
from vaeflow.messages import main

if __name__ == "__main__":
    main(scaling)
