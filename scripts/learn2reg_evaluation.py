"""Judge fields as the Learn2Reg challenge does: ``python -m scripts.learn2reg_evaluation FIELDS --pairs=LIST``.

It is the same as ``ncf evaluate``, for a bundle that is unpacked but not installed. Learn2Reg: Hering et al. 2023,
doi:10.1109/TMI.2022.3213983.
"""

import sys

from ncf.commands.main import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
