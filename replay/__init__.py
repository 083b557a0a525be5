"""Backtests of training callbacks: policies driven over recorded logs, headless."""
