"""`python -m cdasr.recipe STAGE --hparams FILE ...`, and `python -m cdasr.recipe run --recipe DIR ...`."""

import sys

from cdasr.recipe.stages import ORDER, STAGES, main

sys.exit(main(STAGES, ORDER, "cdasr.recipe"))
