"""The method of KDAS, knowledge distillation via attention supervision, in one small package.

The chapters in ``book/`` call these modules; nothing here imports the book.
"""

import os

__version__ = "0.1.0"

# OpenMP's threads spin while they wait, and as soon as other programs want the cores, training
# becomes up to nine times slower. A short spin costs little; it is chosen before PyTorch loads.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "2500"


class UserError(ValueError):
    """Something in the input is wrong; one sentence has the file, the fact and the way out."""
