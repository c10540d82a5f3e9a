"""`act diagnose --robot`: a policy, its demonstrations, and trials on an arm."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro

from act_minimal.command.diagnose import page_for
from act_minimal.execution import ExecutionConfig
from act_minimal.support.results import Json
from act_minimal.support.validation import ClassPath, Count, Positive, Threads, Whole

from ..robots import VIRTUAL, RobotConfig
from .drive import driven, judge_of, session


@dataclass(frozen=True)
class DiagnoseArmConfig(RobotConfig):
    """Which policy, which demonstrations, and on which arm it is tried."""

    policy: Path = Path("runs/real")
    """A checkpoint folder, or a training run."""
    data: Path = Path("demos")
    """Folder of the demonstrations that it was trained on."""
    network: ClassPath | None = None
    """The network of your own that it was trained with, as module:Class."""
    trials: Count = 5
    """How often the policy drives the arm."""
    seconds: Positive = 20.0
    """A trial lasts at most so long."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    task: str | None = None
    """The scene that a 'virtual' arm stands in; by default the arm's usual one."""
    scenes: Whole | None = None
    """For a virtual arm: lay evaluation scenes of this seed, and let it judge."""
    threads: Threads = 1
    """CPU threads of the policy; one is steadier on a busy machine."""
    html: Path | None = None
    """The report with figures; by default runs/diagnosis_POLICY.html."""


def diagnose_arm(
    config: tyro.conf.OmitArgPrefixes[DiagnoseArmConfig], json: Json = False
) -> int:
    """Why does it fail on this arm? The policy, its demonstrations, and a few trials.

    First what needs no arm, then trials as act deploy runs them, within the same
    limits; space or Ctrl-C stops the arm. Exits with 1 if something is wrong, or if it
    fails and nothing was found.

    $ act diagnose --robot so100 --port /dev/ttyACM0 --cameras top=0 wrist=2 \
          --policy runs/vision --data demos
    $ act diagnose --robot openarm --port virtual --policy runs/handover --data demos
    """
    import torch

    from act_minimal.checkpoint import find_checkpoint, load_policy
    from act_minimal.diagnosis import diagnose as doctor
    from act_minimal.diagnosis.report import conclude, write_html
    from act_minimal.diagnosis.trials import Trials
    from act_minimal.residual import refuse_head

    from ..deployment import check_fit
    from ..diagnosis import arm_trials
    from ..robots import make_robot

    torch.set_num_threads(config.threads)
    page = page_for(config.policy, config.html)
    folder = find_checkpoint(config.policy)
    refuse_head(folder, "the policy below it")
    policy = load_policy(folder, network=config.network)
    evidence = doctor.gather(policy, config.data, folder)
    found = doctor.look(evidence, progress=not json)
    found.policy = str(folder)
    if found.named("not_finite"):  # such a policy is not let loose on an arm
        return conclude(page, found, evidence, None).show(json)
    write_html(page, found, evidence)  # what is known before an arm is touched
    if config.port == VIRTUAL:  # it shows and tells what the policy wants to know
        config = replace(
            config,
            cameras=config.cameras or policy.cameras,
            objects=VIRTUAL if policy.config.env_state_dim else config.objects,
        )
    say: Any = (lambda text: None) if json else print
    with session(config) as (stop, keys, here, last):
        robot = make_robot(here, policy.image_sizes, stop, None)
        check_fit(policy, robot)
        judge = judge_of(config, here.port, keys, robot, last)
        with driven(robot, -1, say):
            trials = arm_trials(
                policy,
                robot,
                judge,
                execution=config.execution,
                n=config.trials,
                seconds=config.seconds,
                say=say,
            )
    kept = Trials(evidence, new=trials, execution=config.execution)
    doctor.judge(found, kept)
    return conclude(page, found, evidence, kept).show(json)
