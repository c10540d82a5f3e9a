"""The OpenArm: two arms of eight Damiao motors each, one CAN bus an arm."""
