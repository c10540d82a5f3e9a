"""SO-100 and SO-101: six STS3215 servos on one half-duplex serial bus."""
