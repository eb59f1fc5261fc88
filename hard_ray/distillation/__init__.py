"""How a student learns from a teacher: objectives, the two-phase step, the loop."""
