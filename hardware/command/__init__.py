"""The commands of `act` that touch an arm."""
