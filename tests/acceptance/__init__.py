"""The installed program against real servers, under every fault it promises to survive."""
