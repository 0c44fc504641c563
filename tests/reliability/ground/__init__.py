"""A load that knows where each call may lead, and the Services that it dials."""
