"""``python -m maotune``: the command line."""

from maotune.cli import main

if __name__ == "__main__":
    main()
