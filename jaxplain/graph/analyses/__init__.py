"""Analyses: each file computes one property of a program, and changes nothing."""
