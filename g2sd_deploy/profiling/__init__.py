"""Latency of anything that predicts, over every runtime that this machine has."""
