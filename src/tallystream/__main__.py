"""`python -m tallystream`: the same as the console script."""

from tallystream.cli import main

if __name__ == "__main__":
    main()
