"""The command ``python -m ncf``, the same as ``ncf`` of an installed library."""

from ncf.commands.main import main

if __name__ == "__main__":
    main()
