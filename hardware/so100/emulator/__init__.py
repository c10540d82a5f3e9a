"""A virtual SO-100 or SO-101: servos that speak the real bytes, on real physics.

`servo` is one STS3215's memory and rules, `wire` the bus with its faults, `arm` the
MuJoCo scene that the servos turn (`so101` is that of a SO-101), `service` the process
that opens the port.
"""
