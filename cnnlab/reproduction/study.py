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
        data: the name of a data set; or a function that makes one, the same at each call.
        seen: how many of the seeds had been run when the rules that judge the row were written; later ones judge it.
    """

    name: str
    what: str
    model: str
    recipe: Recipe
    seeds: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str | Callable[[], Dataset] = "cifar10"
    seen: int = 0

    def in_epochs(self, epochs: int) -> Row:
        """Return the row with a schedule of the same shape in so many epochs; one that has no more stays as it is."""
        if epochs >= self.recipe.epochs:
            return self
        recipe, share = self.recipe, epochs / self.recipe.epochs
        milestones = [share * milestone for milestone in recipe.milestones]
        warmup = share * recipe.warmup_epochs
        recipe = recipe.replace(epochs=epochs, milestones=milestones, warmup_epochs=warmup)
        return replace(self, recipe=recipe, seen=0)  # nobody has seen runs of that


@dataclass(frozen=True)
class Verdict:
    """One claim, judged by a rule that was fixed before anything was measured, or that says that it was not.

    Attributes:
        claim: what is claimed, one sentence.
        rule: when it counts as held, with the tolerance.
        measured: what was found, in words and numbers; "" when nothing was.
        outcome: "holds", "does not hold", "undecided" (too few seeds, or a quick version cannot tell), "not run".
        afterwards: whether the rule is younger than the data.
    """

    claim: str
    rule: str
    measured: str = ""
    outcome: Literal["holds", "does not hold", "undecided", "not run"] = "not run"
    afterwards: bool = False

    @classmethod
    def of(cls, claim: str, rule: str, measured: str, held: bool | None, *, afterwards: bool = False) -> Verdict:
        """Judge: True holds, False does not, None is undecided."""
        outcomes: dict[bool | None, Any] = {True: "holds", False: "does not hold", None: "undecided"}
        return cls(claim, rule, measured, outcomes[held], afterwards)

    @property
    def judged_by(self) -> str:
        """The rule, and whether it was made afterwards, as one says it: `Rule: ...`."""
        return f"Rule{', made after the fact' if self.afterwards else ''}: {self.rule}"


class Study(ABC):
    """A table or figure of a paper, from one command.

    A study says which rows to train (`rows`, asked again after every row, so that later ones may depend on earlier
    ones), what to find out beyond training (`inspect`, `measure`), and how to show and judge what came out. All that it
    shows is made from `Results`, which is what the JSON file holds.

    Attributes:
        name: the word for the command line.
        title: a headline.
        claim: what the source says, one sentence.
        source: where it says so.
        shortened: what the quick version does differently.
        quick_minutes: rough time of the quick version on two CPU cores.
        full_time: rough time of the full version, with the hardware.
        caveat: what to keep in mind of versions with shortened schedules (`--epochs`); "" for nothing.
        figures: of each figure that `draw` makes, the name and what one sees in it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    claim: ClassVar[str]
    source: ClassVar[str]
    shortened: ClassVar[str]
    quick_minutes: ClassVar[float]
    full_time: ClassVar[str]
    caveat: ClassVar[str] = ""
    figures: ClassVar[Mapping[str, str]]

    def rows(self, results: Results) -> Sequence[Row]:
        """Return the rows to train, given what has been found so far; none where nothing is trained."""
        return ()

    def inspect(self, folder: Path) -> dict[str, Any]:
        """Return what is found out about a finished run beyond the records of its training, as plain JSON values.

        It is asked once for each run that has not diverged, and kept in its record, under `found`.

        Args:
            folder: the run folder.
        """
        return {}

    def measure(self, results: Results) -> dict[str, Any]:
        """Return what is found out without training, as plain JSON values.

        Args:
            results: the finished runs.
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
