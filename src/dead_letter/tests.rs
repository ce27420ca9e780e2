//! What is promised about dead letters.
