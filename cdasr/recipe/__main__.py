"""`python -m cdasr.recipe STAGE --hparams FILE ...`, and `python -m cdasr.recipe run --recipe DIR ...`."""

import sys

from cdasr.recipe.command import main

sys.exit(main())
