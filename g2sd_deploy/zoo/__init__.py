"""Public teachers: where they are, how to fetch them whole, and how to turn them into models of this package."""
