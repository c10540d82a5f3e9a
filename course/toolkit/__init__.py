"""What all lessons use: checks, predictions, widgets, plots, results, runs."""
