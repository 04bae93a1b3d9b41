"""Questions of experiments/questions: what each asks, and how it becomes a sweep beside its control."""
