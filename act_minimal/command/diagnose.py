"""The `act diagnose` command."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..execution import ExecutionConfig
from ..support.errors import SettingError
from ..support.results import Json, Result
from ..support.validation import (
    Bounds,
    ClassPath,
    SceneSeed,
    TaskName,
    check_settings,
)


@dataclass(frozen=True)
class DiagnoseConfig:
    """Which policy, which demonstrations, and where it is tried."""

    policy: Path
    """A checkpoint folder, or a training run (its newest checkpoint is taken)."""
    data: Path
    """Folder of the demonstrations that it was trained on."""
    network: ClassPath | None = None
    """The network of your own that it was trained with, as module:Class."""
    task: TaskName | ClassPath | None = None
    """Also send demonstrations to this simulated task, and roll the policy out there,
    on scenes of the demonstrations and on new ones."""
    trials: Path | None = None
    """Or look at trials that were recorded elsewhere: a folder of episodes in which the
    policy drove, with an attribute `success` where somebody judged."""
    n: Annotated[int, Bounds(4, 200)] = 20
    """Replays, and rollouts of each kind."""
    seed: SceneSeed = 0
    """Decides the new scenes."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    html: Path | None = None
    """The report with figures; by default runs/diagnosis_POLICY.html."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, mps."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.task and self.trials:
            raise SettingError(
                f"trials is {self.trials} and task is {self.task!r}, expected one of "
                "them"
            )


def page_for(policy: Path, html: Path | None) -> Path:
    """Where the report goes; refuses another ending, or a folder that is not there."""
    from ..support.files import check_output_file

    page = html or Path("runs") / f"diagnosis_{policy.resolve().name}.html"
    check_output_file(page, "html", ".html")
    return page


def diagnose(
    config: tyro.conf.OmitArgPrefixes[DiagnoseConfig], json: Json = False
) -> Result:
    """Why does it fail? A policy, its demonstrations and its trials, looked through.

    Feeds the policy what it was trained on, as it is and altered; looks at training,
    data and, if there is one, at the simulated task or at recorded trials. Each finding
    says what was measured, what is usual, how sure it is, and what to do next. Exits
    with 1 if something is wrong, or if it fails and nothing was found.

    $ act diagnose --policy runs/first --data demos
    $ act diagnose --policy runs/first --data demos --task so100_pick_place
    $ act diagnose --policy runs/first --data demos --trials recorded_trials
    """
    from ..checkpoint import find_checkpoint, load_policy
    from ..diagnosis import diagnose as doctor
    from ..diagnosis.report import conclude
    from ..residual import refuse_head
    from ..support.processes import choose_device

    folder = find_checkpoint(config.policy)
    page = page_for(config.policy, config.html)
    refuse_head(folder, "the policy below it")
    policy = load_policy(folder, choose_device(config.device), config.network)
    evidence = doctor.gather(policy, config.data, folder)
    make_robot = None
    if config.task:
        make_robot = doctor.simulated(policy, config.task)
    found = doctor.look(evidence, progress=not json)
    found.policy = str(folder)
    trials = None
    if found.named("not_finite"):
        make_robot = None  # such a policy is not let loose on an arm
    if make_robot:
        trials = doctor.try_out(
            evidence,
            make_robot,
            config.execution,
            n=config.n,
            seed=config.seed,
            progress=not json,
        )
    elif config.trials and not found.named("not_finite"):
        trials = doctor.recorded_trials(evidence, config.trials, config.execution)
    if trials:
        doctor.judge(found, trials)
    return conclude(page, found, evidence, trials)
