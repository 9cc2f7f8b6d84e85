"""Claims judged by evidence."""
