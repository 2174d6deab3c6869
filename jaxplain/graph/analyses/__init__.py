"""What is known of a program: each file finds out one thing, and changes nothing."""
