"""What people read: traces and comparisons as text."""
