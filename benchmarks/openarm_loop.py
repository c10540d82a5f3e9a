"""Virtual OpenArms through their buses: how many ticks a second, and how steady.

    uv run python -m benchmarks.openarm_loop

Arms and program are two processes on one machine; the emulated frames take the time
that frames of 8 bytes take at 1 Mbit/s. A goal is answered with feedback, so one
exchange commands a motor and reads it.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from act_minimal.policy import load_policy
from benchmarks.campaign import Swaying
from benchmarks.loops import policy_loop
from benchmarks.results import RESULTS, write
from hardware.openarm.arm import OpenArm
from hardware.openarm.motors import IDS
from hardware.robots import VIRTUAL, RobotConfig, make_openarm, make_robot, plugged_in
from hardware.safety import EmergencyStop

STATE = RESULTS.parent / "checkpoints" / "openarm_handover_state"
RATE = 200.0  # Hz
SWAYING = (5, 6, 13, 14)  # the wrists
AMPLITUDE = 0.05  # rad, of the elbows, while exchanges are counted


class Diligent:
    """Predicts as a policy, and sways: the arms move for minutes without a task.

    Args:
        policy: asked for every chunk that it would be asked for.
        sway: what is sent.
    """

    def __init__(self, policy: Any, sway: Swaying):
        self.policy, self.sway = policy, sway
        self.cameras, self.chunk_size = policy.cameras, policy.chunk_size
        sway.chunk_size = policy.chunk_size

    def predict_chunk(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """A chunk of the sway, after the policy's own."""
        self.policy.predict_chunk(observation)
        return self.sway.predict_chunk(observation)


def fresh(arm: OpenArm, since: float) -> bool:
    """Whether every motor has answered after that moment."""
    now = time.monotonic()
    return all(bus.age(id) <= now - since for bus in arm.buses for id in IDS)


def exchanges(config: RobotConfig, seconds: float) -> dict[str, Any]:
    """16 motors commanded and read at 200 Hz, and then as fast as it goes."""
    arm, _ = make_openarm(config)
    arm.ticker.rate = RATE
    arm.connect()
    try:
        here = arm.measure()[0]
        old = 0

        def exchange(tick: int) -> None:
            nonlocal old
            goal = here.copy()
            goal[[3, 11]] += AMPLITUDE * np.sin(2 * np.pi * tick / RATE)  # the elbows
            begin = time.monotonic()
            arm.send(goal)
            old += not fresh(arm, begin)

        arm.ticker.start()
        for tick in range(int(RATE * seconds)):
            exchange(tick)
            arm.ticker.wait()
        paced = arm.ticker.report() | {"ticks_without_all_answers": old}
        old, n = 0, 2000
        begin = time.perf_counter()
        for tick in range(n):
            exchange(tick)
        rate = n / (time.perf_counter() - begin)
        return {
            "bare_200_hz": paced,
            "unpaced": {"rate_hz": rate, "n": n, "ticks_without_all_answers": old},
        }
    finally:
        arm.close()


def main(
    policy: Path = STATE, seconds: float = 300.0, exchange_seconds: float = 60.0
) -> None:
    """Measure, and write data/results/openarm_loop.json.

    Args:
        policy: a state policy of openarm_handover; it predicts whenever a policy would
            be asked, with one thread, and what is sent is a sway.
        seconds: that its loop runs.
        exchange_seconds: that the motors are commanded and read at 200 Hz.
    """
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    virtual = RobotConfig(VIRTUAL, robot="openarm")
    with plugged_in(virtual) as config:
        content = exchanges(config, exchange_seconds)
    with plugged_in(virtual) as config, EmergencyStop() as stop:
        robot = make_robot(config, (96, 128), stop)
        robot.connect()
        try:
            sway = Swaying(robot.limits.ready, robot.fps, SWAYING)
            driver = Diligent(load_policy(policy), sway)
            content["policy_50_hz"] = policy_loop(robot, driver, seconds)
            assert isinstance(robot.arm, OpenArm)
            content["buses"] = [
                vars(bus.traffic) | {"strangers": len(bus.traffic.strangers)}
                for bus in robot.arm.buses
            ]
        finally:
            robot.close()
    write("openarm_loop", time.perf_counter() - start, {"repetitions": 1} | content)


if __name__ == "__main__":
    tyro.cli(main)
