"""Where a finding is: RetinaNet detection, Mammo-FActOR, boxes of heat maps, and their metrics."""
