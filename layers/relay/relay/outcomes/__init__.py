"""What became of messages and broadcasts, told to whoever listens on the event bus."""
