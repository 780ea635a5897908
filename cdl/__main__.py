"""Run the command line interface by `python -m cdl`."""

from cdl.cli import main

if __name__ == "__main__":
    main()
