"""The handlers of the four domains. They see only the public API of `event_router`."""
