"""What everything that talks to Redis shares: addresses, connections, replies and scripts."""
