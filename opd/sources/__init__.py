"""Who writes the completions that are trained on: the student, the dataset, the teacher, or several of them."""
