"""How good, and how robust, a student is."""
