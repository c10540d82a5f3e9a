"""A virtual OpenArm: motors that answer the real frames, on arms with real physics.

`motor` is one Damiao motor's registers and rules, `wire` an arm's bus with its faults,
`arm` both arms in MuJoCo, `service` the process that is on both buses.
"""
