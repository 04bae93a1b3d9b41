"""What does each verb of the command do? One file a verb."""
