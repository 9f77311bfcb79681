"""``python -m lightning_lottery``: the command ``lightning-lottery``."""

from lightning_lottery.cli import main

if __name__ == "__main__":
    main()
