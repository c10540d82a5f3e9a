"""Real arms, and their emulators that speak the same bytes.

`so100` is the SO-100 / SO-101 on a serial bus of Feetech STS3215 servos. `safety`
stands between any policy and any bus; `cameras`, `teleop`, `recording` and
`deployment` serve every robot.
"""
