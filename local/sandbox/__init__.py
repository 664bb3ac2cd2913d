"""SMS Gold's Telegram endpoints on your own machine, with an inbox, a ledger and faults."""
