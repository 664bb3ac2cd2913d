"""What the relay's functions share: the envelope, the states of a message, its ways in and out."""
