"""`python -m cdl` is `cdl`."""

from cdl.cli import main

if __name__ == "__main__":
    main()
