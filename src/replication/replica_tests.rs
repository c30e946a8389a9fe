//! Scripts of the replica state machine: commands in, effects out (`testdata/replica.txt`).
