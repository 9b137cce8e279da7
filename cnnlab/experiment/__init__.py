"""Whole experiments by name: fit, resume, load. The room on top of all others but the command line."""

from .fit import fit as fit
from .fit import resume as resume
from .load import load as load
from .load import refresh_report as refresh_report
from .load import seed_folders as seed_folders
from .run import Run as Run
from .run import Runs as Runs
