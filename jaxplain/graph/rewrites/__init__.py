"""Rewrites: each makes a program of a program, and leaves the old one as it was."""
