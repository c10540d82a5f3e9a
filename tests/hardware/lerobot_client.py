"""LeRobot's own SO-100 follower, unchanged, against the virtual arm.

Run by test_lerobot_client.py in an environment of its own, where `act_minimal` is
not installed: only the port connects the two. Prints one line of JSON.

    python tests/hardware/lerobot_client.py PORT CALIBRATION_FOLDER
"""

import json
import sys
import time
from pathlib import Path

from lerobot.robots.so_follower import SO100Follower, SO100FollowerConfig


def main(port: str, folder: str) -> None:
    config = SO100FollowerConfig(
        port=port, id="virtual", calibration_dir=Path(folder), use_degrees=True
    )
    robot = SO100Follower(config)
    robot.connect(calibrate=False)
    calibrated = robot.is_calibrated
    first = robot.get_observation()
    wish = dict(first) | {"shoulder_pan.pos": first["shoulder_pan.pos"] + 10.0}
    start = time.monotonic()
    for _ in range(30):
        robot.send_action({k: v for k, v in wish.items() if k.endswith(".pos")})
        last = robot.get_observation()
        time.sleep(max(0.0, 1 / 30 - (time.monotonic() - start) % (1 / 30)))
    robot._save_calibration(Path(folder) / "written.json")
    robot.disconnect()
    first, last = ({k: float(v) for k, v in one.items()} for one in (first, last))
    print(json.dumps({"calibrated": calibrated, "first": first, "last": last}))


if __name__ == "__main__":
    main(*sys.argv[1:])
