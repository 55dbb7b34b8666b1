"""Be the subject yourself: vote on twenty triplets, and see how little twenty votes say.

:class:`Trial` holds the votes and scores them, :func:`trial_widget` is its face in a notebook. The observers that you
are compared with are *simulated*: agreement with them says nothing about your eyes.
"""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from course_lib.data import triplets
from course_lib.judgments.evaluation import l2
from course_lib.judgments.scores import bootstrap_interval, two_afc_agreement
from course_lib.lpips import LPIPS
from course_lib.paths import cache_dir, write_atomically

if TYPE_CHECKING:
    import ipywidgets

NOTE = "The observers are simulated: agreement with them says nothing about your eyes."
ZOOM = 3  # screen pixels for one of a patch


class Trial:
    """Triplets of the simulated test split, drawn by a seed, and one person's votes on them.

    Every vote is written at once, so that a trial can be continued later; trials of other seeds have files of their
    own.

    Attributes:
        seed: decides which triplets are shown.
        triplets: those, in the order of the trial.
        votes: 0 or 1 for each triplet judged so far: the number of the candidate that was called closer.
        path: file that keeps the votes.

    Args:
        seed: as above.
        size: number of triplets.
        folder: where the file lies; default: :func:`course_lib.paths.cache_dir`.

    Raises:
        ValueError: if there are not as many triplets, or the file is damaged or belongs to other triplets; it is left
            as it is.
    """

    def __init__(self, seed: int = 0, size: int = 20, folder: str | Path | None = None):
        test = triplets.simulated("test")
        if not 1 <= size <= len(test):
            raise ValueError(f"size is {size}; choose 1 to {len(test)} triplets")
        self.seed = seed
        self._rows = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[:size]
        self.triplets = test.select(self._rows)
        self.path = Path(folder or cache_dir()) / f"trial-{seed}-{size}.json"
        self.votes: list[int] = self._stored()

    def __len__(self) -> int:
        return len(self.triplets)

    @property
    def done(self) -> bool:
        """Whether every triplet was judged."""
        return len(self.votes) == len(self)

    def vote(self, choice: int) -> None:
        """Call candidate 0 or 1 of the next triplet the closer one, and write it down.

        Raises:
            ValueError: for another choice, a trial that is done, or votes that were given elsewhere meanwhile.
        """
        if choice not in (0, 1):
            raise ValueError(f"choice is {choice!r}; vote 0 for p0 or 1 for p1")
        if self.done:
            raise ValueError(f"all {len(self)} triplets are judged; restart() forgets the votes")
        if self._stored() != self.votes:
            raise ValueError(f"somebody else voted in {self.path} meanwhile; open the trial again")
        votes = [*self.votes, int(choice)]
        write_atomically(self.path, (json.dumps({**self._about(), "votes": votes}) + "\n").encode())
        self.votes = votes

    def restart(self) -> None:
        """Forget all votes of this trial."""
        self.path.unlink(missing_ok=True)
        self.votes = []

    def coin(self, seed: int = 0) -> list[int]:
        """Votes of somebody who flips a coin instead of looking."""
        return torch.randint(2, (len(self),), generator=torch.Generator().manual_seed(seed)).tolist()

    def scores(self, votes: list[int] | None = None, voter: str = "you") -> pd.DataFrame:
        """2AFC agreement with the *simulated* observers, beside theirs with one another and that of two metrics.

        Args:
            votes: default: those of this trial. If they are fewer than the triplets, all rows count the judged ones.
            voter: name of the first row.

        Returns:
            One row each for the voter, one random observer (human ceiling), the observers' majority (majority
            ceiling), LPIPS("st-alex") and pixel L2. Columns: score, low, high (95 % bootstrap interval over triplets).

        Raises:
            ValueError: if there are no votes yet, or too many.
        """
        votes = self.votes if votes is None else votes
        if not 0 < len(votes) <= len(self):
            raise ValueError(f"{len(votes)} votes on {len(self)} triplets; vote on at least one")
        ref, p0, p1, judge = self.triplets[: len(votes)]
        chosen = torch.tensor(votes, dtype=torch.float32)
        with torch.no_grad():
            by_lpips = LPIPS("st-alex").triplet_distances(ref, p0, p1)
        credits = {
            voter: two_afc_agreement(chosen, 1 - chosen, judge),
            "one random observer": judge.square() + (1 - judge).square(),
            "their majority": torch.maximum(judge, 1 - judge),
            "st-alex": two_afc_agreement(*by_lpips, judge),
            "pixel L2": two_afc_agreement(l2(ref, p0), l2(ref, p1), judge),
        }
        rows = {name: (credit.mean().item(), *_interval(credit)) for name, credit in credits.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["score", "low", "high"])

    def _about(self) -> dict:
        """What the votes belong to: changes with the triplets and with what the simulated observers said."""
        observers = [round(5 * share) for share in self.triplets.judge.tolist()]
        return {"seed": self.seed, "triplets": self._rows.tolist(), "observers": observers}

    def _stored(self) -> list[int]:
        try:
            content = json.loads(self.path.read_bytes())
            votes = content.pop("votes")
            if not (isinstance(votes, list) and len(votes) <= len(self) and all(vote in (0, 1) for vote in votes)):
                raise ValueError("votes are not 0 or 1")
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.path} is damaged ({error}); move it away to start anew") from None
        if content != self._about():
            raise ValueError(f"{self.path} has votes on other triplets; move it away to start anew")
        return votes


def _interval(credit: Float[Tensor, "n"]) -> tuple[float, float]:
    return bootstrap_interval(lambda i: credit[i].mean().item(), len(credit))


def trial_widget(trial: Trial) -> "ipywidgets.VBox":
    """Buttons to vote with: the reference in the middle, p0 left, p1 right; after the last vote the scores."""
    import ipywidgets as widgets

    headline, result = widgets.HTML(), widgets.HTML()
    pictures = [widgets.Image(format="png", width=64 * ZOOM, height=64 * ZOOM) for _ in range(3)]
    buttons = [widgets.Button(description=f"the {side} is closer") for side in ("left one", "right one")]
    again = widgets.Button(description="forget my votes")

    def refresh() -> None:
        if trial.done:
            headline.value = f"All {len(trial)} triplets are judged."
            table = (100 * trial.scores()).round().astype(int).astype(str) + " %"
            result.value = f"{table.to_html()}<p>{NOTE}</p>"
        else:
            headline.value = f"Triplet {len(trial.votes) + 1} of {len(trial)}: which one is closer to the middle?"
            result.value = ""
            ref, p0, p1 = (getattr(trial.triplets, name)[len(trial.votes)] for name in ("ref", "p0", "p1"))
            for picture, pixels in zip(pictures, (p0, ref, p1), strict=True):
                picture.value = _png(pixels)
        for button in buttons:
            button.disabled = trial.done

    def press(choice: int) -> None:
        try:
            trial.vote(choice)
        except (ValueError, OSError) as error:
            headline.value = f"Not counted: {error}"
        else:
            refresh()

    def forget() -> None:
        trial.restart()
        refresh()

    buttons[0].on_click(lambda _: press(0))
    buttons[1].on_click(lambda _: press(1))
    again.on_click(lambda _: forget())
    refresh()
    left, middle, right = pictures
    columns = [widgets.VBox([left, buttons[0]]), middle, widgets.VBox([right, buttons[1]])]
    return widgets.VBox([headline, widgets.HBox(columns), again, result])


def _png(pixels: Tensor) -> bytes:
    """A patch (3, h, w) of uint8 as PNG, every pixel enlarged to a square."""
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    content = io.BytesIO()
    image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.NEAREST).save(content, "png")
    return content.getvalue()
