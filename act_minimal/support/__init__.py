"""What everything stands on: errors, files, processes, the terminal."""
