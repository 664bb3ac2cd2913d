"""Single messages: the envelope, its states, the way in, the way to the provider."""
