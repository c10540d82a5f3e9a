"""The `act` command, one module a group of commands."""
