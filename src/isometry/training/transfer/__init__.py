"""Transfer of a finished network to another task: classes of other images, boxes, masks."""
