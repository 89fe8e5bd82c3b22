"""What a network's features keep: images found again, patches matched between views, neighbours of the teacher kept."""
