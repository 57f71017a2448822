"""`python -m talweg` is the `talweg` command."""

from talweg.cli import main

if __name__ == "__main__":
    main()
