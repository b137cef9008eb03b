"""The options of `lorafleet serve`, and the settings that they make. Starts nothing."""
