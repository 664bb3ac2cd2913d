"""The provider on your own machine: its three endpoints, an inbox, a ledger, scripted faults."""
