"""Pure decisions: functions from values to values, tested with no server."""
