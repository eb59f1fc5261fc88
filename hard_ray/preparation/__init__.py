"""What is made before a student is trained: teachers, autoencoders, generated sets, scores."""
