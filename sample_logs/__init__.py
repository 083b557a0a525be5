"""Small honest training logs that the demo, the README and the tests share."""
