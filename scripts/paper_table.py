"""Measure the paper's table 1: ``python -m scripts.paper_table --data_dir=FOLDER``.

It is the same as ``ncf paper_table``, for a bundle that is unpacked but not installed.
"""

import sys

from ncf.commands.main import main

if __name__ == "__main__":
    main(["paper_table", *sys.argv[1:]])
