"""Reproduce the tables and figures of the thesis and its papers; the same as `cnnlab reproduce`.

    python examples/reproduce.py                         # what there is, with the time of each
    python examples/reproduce.py figure3                 # linear against sigmoid activations: about a minute
    python examples/reproduce.py resnet-cifar --quick    # a small version, for minutes on a laptop
    python examples/reproduce.py resnet-cifar            # in full: a GPU, unattended; goes on where it stopped
    python examples/reproduce.py thesis --workers 2      # small networks on CPU: a process per core
    python examples/reproduce.py figure8 --epochs 12     # every schedule shortened, in its shape

Time: each `--quick` some minutes on two CPU cores; in full from a minute (figure3) to days on CPU or hours on a GPU.
Writes: run folders, results.json, results.csv and figures in runs/reproduce/NAME; `--docs docs` publishes them.
Expect: a table and a verdict on each claim; docs/reproduction.md has ours.
"""

import sys

from cnnlab.cli import main

if __name__ == "__main__":
    sys.exit(main(["reproduce", *sys.argv[1:]]))
