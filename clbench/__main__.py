"""``python -m clbench``: the command line, as launchers such as torchrun start it."""

from clbench.cli.app import main

if __name__ == "__main__":
    main()
