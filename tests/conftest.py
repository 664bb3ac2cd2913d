"""What all tiers share."""

from hypothesis import Phase, settings

# `make mutants` wants to know that a test fails, not the shortest way there.
settings.register_profile("unshrunk", phases=[Phase.explicit, Phase.generate])
