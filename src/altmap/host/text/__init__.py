"""What the host commands print."""
