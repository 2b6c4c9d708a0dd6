"""Where data enters: files and the simulator. Imports schemas only."""
