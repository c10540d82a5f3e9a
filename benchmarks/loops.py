"""How steady an arm's control loop is; shared by `so100_bus` and `openarm_loop`."""

from typing import Any

import numpy as np

from act_minimal.control import run
from act_minimal.execution import ExecutionConfig, make_executor
from hardware.deployment import TimedPolicy
from hardware.safety import SafeRobot


def policy_loop(robot: SafeRobot, policy: Any, seconds: float) -> dict[str, Any]:
    """A policy drives from the ready pose; the robot is connected."""
    robot.go(robot.limits.ready)
    timed = TimedPolicy(policy)
    robot.arm.ticker.start()
    executor = make_executor(ExecutionConfig(), policy.chunk_size)
    run(robot, timed, executor, int(robot.fps * seconds))
    return robot.arm.ticker.report() | {
        "prediction_ms_p50": float(np.median(timed.ms)),
        "prediction_ms_p99": float(np.percentile(timed.ms, 99)),
        "interventions": dict(robot.interventions.counts),
    }
