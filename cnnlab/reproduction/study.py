"""What a reproduction is: a claim, the rows that are trained to examine it, and the rule that judges them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cnnlab.data import Dataset
from cnnlab.training import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .results import Results

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Column heads, and the cells of each line."""


@dataclass(frozen=True)
class Row:
    """One line of a table: a network, trained by a recipe on a data set with several seeds.

    Attributes:
        name: short, unique in its study, fit for a folder.
        what: what it is, or what differs from the row that others are compared with.
        model: a registered name.
        recipe: how it is trained.
        seeds: how many: 0, 1, ...
        options: of the model.
        data: the name of a data set; or a function that makes one. Runs on the latter begin anew when interrupted.
    """

    name: str
    what: str
    model: str
    recipe: Recipe
    seeds: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str | Callable[[], Dataset] = "cifar10"

    def in_epochs(self, epochs: int) -> Row:
        """Return the row with a schedule of the same shape in so many epochs."""
        recipe, share = self.recipe, epochs / self.recipe.epochs
        milestones = [share * milestone for milestone in recipe.milestones]
        warmup = share * recipe.warmup_epochs
        return replace(self, recipe=recipe.replace(epochs=epochs, milestones=milestones, warmup_epochs=warmup))


@dataclass(frozen=True)
class Verdict:
    """One claim, judged by a rule that was fixed before anything was measured.

    Attributes:
        claim: what is claimed, one sentence.
        rule: when it counts as held, with the tolerance.
        measured: what was found, in words and numbers; "" when nothing was.
        outcome: "holds", "does not hold", "undecided" (too few seeds, or a quick version cannot tell), "not run".
    """

    claim: str
    rule: str
    measured: str = ""
    outcome: Literal["holds", "does not hold", "undecided", "not run"] = "not run"

    @classmethod
    def of(cls, claim: str, rule: str, measured: str, held: bool | None) -> Verdict:
        """Judge: True holds, False does not, None is undecided."""
        outcomes: dict[bool | None, Any] = {True: "holds", False: "does not hold", None: "undecided"}
        return cls(claim, rule, measured, outcomes[held])


class Study(ABC):
    """A table or figure of a paper, from one command.

    A study says which rows to train (`rows`, asked again after every row, so that later ones may depend on earlier
    ones), what to find out beyond training (`measure`), and how to show and judge what came out. All that it shows is
    made from `Results`, which is what the JSON file holds.

    Attributes:
        name: the word for the command line.
        title: a headline.
        claim: what the source says, one sentence.
        source: where it says so.
        shortened: what the quick version does differently.
        quick_minutes: rough time of the quick version on two CPU cores.
        full_time: rough time of the full version, with the hardware.
        figures: of each figure that `draw` makes, the name and what one sees in it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    claim: ClassVar[str]
    source: ClassVar[str]
    shortened: ClassVar[str]
    quick_minutes: ClassVar[float]
    full_time: ClassVar[str]
    figures: ClassVar[Mapping[str, str]]

    def rows(self, results: Results) -> Sequence[Row]:
        """Return the rows to train, given what has been found so far; none where nothing is trained."""
        return ()

    def measure(self, results: Results, folders: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
        """Return what is found out beyond the records of training, as plain JSON values.

        Args:
            results: the finished runs.
            folders: the run folders of each row that are still there, by seed.
        """
        return {}

    @abstractmethod
    def table(self, results: Results) -> Table:
        """Return the table."""

    @abstractmethod
    def verdicts(self, results: Results) -> Sequence[Verdict]:
        """Judge the claims; where runs are missing, the outcome is "not run"."""

    @abstractmethod
    def draw(self, results: Results) -> dict[str, Figure]:
        """Return the figures that can be drawn, by their names in `figures`."""
