"""Laws: functions that predict a value from features of a checkpoint."""
