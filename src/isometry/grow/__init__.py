"""Training that starts on a smaller network and reaches full size on the way: what can grow, how, and when."""
