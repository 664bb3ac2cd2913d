"""The operator's commands for a stack, on AWS or on this machine: `python -m ops --help`."""
