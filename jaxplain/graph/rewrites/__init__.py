"""Rewrites: each makes a new program from a program, and leaves the old one as it was."""
