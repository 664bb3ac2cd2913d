"""What an operator does with a stack, on AWS or on this machine: `python -m ops --help`."""
