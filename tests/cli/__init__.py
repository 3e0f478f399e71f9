"""Tests of the command line, with an instant evaluator for workers."""
