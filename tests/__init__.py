"""All tests of the project; a package, so that its parts import each other by full name."""
