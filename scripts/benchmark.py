"""Time vaeflow beside other libraries and beside plain dense nets."""

from vaeflow.commands import benchmark
from vaeflow.messages import main

if __name__ == "__main__":
    main(benchmark)
