"""What the virtual arms share."""
