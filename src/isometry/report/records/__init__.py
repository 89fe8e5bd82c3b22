"""What a report is made of: plain data, read and checked."""
