"""Exhaustive searches: every order in which calls, faults and the sender can meet."""
