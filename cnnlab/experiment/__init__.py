"""Whole experiments by name: fit, resume, load. The room on top of all others but the command line."""

from .find_learning_rate import find_learning_rate as find_learning_rate
from .fit import fit as fit
from .fit import resume as resume
from .folders import claim_folder as claim_folder
from .folders import give_back_folder as give_back_folder
from .load import how_diverged as how_diverged
from .load import load as load
from .load import refresh_report as refresh_report
from .load import seed_folders as seed_folders
from .run import Run as Run
from .run import Runs as Runs
