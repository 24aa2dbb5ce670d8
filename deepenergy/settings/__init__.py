"""Settings of a solve: the configuration and the schedule of stages."""
