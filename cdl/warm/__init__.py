"""Jobs that start in no time: forked from a process that has imported everything."""
