"""Try every AlgoPerf submission in a folder, as it is; says why one does not work.

python scripts/try_submissions.py path/to/submissions_algorithms --markdown table.md
python scripts/try_submissions.py path/to/submissions_algorithms --only lion muon --resume

Each ``submission.py`` that imports torch trains digits, cifar10_synthetic and tiny_lm_pydocs for some steps,
with the search space that lies beside it (its first point). The same file in several places counts once.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from runner.base.errors import UserError, one_line
from runner.check.subject import Subject
from runner.check.trajectory import departure
from runner.check.trial import Trial
from runner.compose.config import compose

WORKLOADS = ("digits", "cifar10_synthetic", "tiny_lm_pydocs")
SPACE = "tuning_search_space.json"
STEPS = 200


@dataclass(frozen=True)
class Outcome:
    """What became of one submission.

    Attributes:
        name: its folders, as they lie below the one that was given.
        faults: why it does not train, by workload; of those where it does not.
        resume: why it starts over instead of resuming; None where it resumes, or was not asked to.
    """

    name: str
    faults: dict[str, str]
    resume: str | None = None


def submissions(folder: Path) -> Iterator[Path]:
    """The files of PyTorch submissions, one of each content."""
    seen: set[str] = set()
    for file in sorted(folder.rglob("submission.py")):
        text = file.read_bytes()
        content = hashlib.sha256(text).hexdigest()
        if content not in seen and b"import torch" in text:
            seen.add(content)
            yield file


def attempt(file: Path, name: str, workloads: Sequence[str], steps: int, resume: bool) -> Outcome:
    """Train ``steps`` steps on each workload; with ``resume``, from a checkpoint in mid-run, too."""
    faults: dict[str, str] = {}
    lost: dict[str, None] = {}
    for workload in workloads:
        try:
            with _quiet():
                subject = _subject(file, workload)
                trial = subject.train(steps)
                faults |= {workload: fault} if (fault := _fault(trial)) else {}
                lost |= dict.fromkeys(_lost(subject, trial, steps) if resume and not fault else ())
        except UserError as error:
            faults[workload] = str(error)
        except Exception as error:
            faults[workload] = one_line(f"{type(error).__name__}: {error}")
    return Outcome(name, faults, "; ".join(lost) or None)


def _subject(file: Path, workload: str) -> Subject:
    space = file.with_name(SPACE)
    searched = [f"algorithm.search_space='{space}'"] if space.is_file() else []
    own = ["algorithm=algoperf", f"algorithm.submission='{file}'", f"workload={workload}", *searched]
    config = compose(own)
    return Subject(config["algorithm"], config["workload"], label=file.parent.name)


def _fault(trial: Trial) -> str | None:
    if trial.ended == "diverged":
        return "diverges"
    before, after = (row["validation/loss"] for row in (trial.rows[0], trial.rows[-1]))
    return "the weights stand still" if before == after else None


def _lost(subject: Subject, whole: Trial, steps: int) -> Iterator[str]:
    """Why a run that is killed half-way does not end as the whole one."""
    killed = subject.train(steps, interrupt_after=max(1, len(whole.steps) // 2))
    try:
        resumed = subject.train(steps, resume=killed.saved)
    except UserError as error:
        yield str(error)
        return
    resumed.steps, resumed.rows = killed.steps + resumed.steps, killed.rows + resumed.rows
    if (fault := departure(whole, resumed)) is not None:
        yield fault


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(io.StringIO()):
            yield


def markdown(outcomes: Sequence[Outcome]) -> str:
    """A row for each PyTorch submission."""
    lines = ["| submission | trains | resumes |", "|---|---|---|"]
    for one in outcomes:
        reasons = dict.fromkeys(one_line(fault, 160).replace("|", "/") for fault in one.faults.values())
        trains = "yes" if not one.faults else f"no ({', '.join(one.faults)}): {'; '.join(reasons)}"
        resumes = "" if one.faults else "yes" if one.resume is None else f"starts over: {one.resume}"
        lines.append(f"| {one.name} | {trains} | {resumes} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Try what lies in the folder; returns 1 where a PyTorch submission does not train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="searched for submission.py, at any depth")
    parser.add_argument("--only", nargs="+", default=[], help="those whose path holds one of these words")
    parser.add_argument("--workloads", nargs="+", default=WORKLOADS)
    parser.add_argument("--steps", type=int, default=STEPS, help="default %(default)s")
    parser.add_argument("--resume", action="store_true", help="also resume each from a checkpoint")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    tried: list[Outcome] = []
    for file in submissions(given.folder):
        name = str(file.parent.relative_to(given.folder))
        if given.only and not any(word in name for word in given.only):
            continue
        one = attempt(file, name, given.workloads, given.steps, given.resume)
        tried.append(one)
        print(f"{name}: {one.faults or 'ok'} {one.resume or ''}".rstrip(), flush=True)
    print(f"{sum(not one.faults for one in tried)} of {len(tried)} PyTorch submissions train")
    if given.markdown:
        given.markdown.write_text(markdown(tried), encoding="utf-8")
    return int(any(one.faults for one in tried))


if __name__ == "__main__":
    sys.exit(main())
