"""Tests of engines apart."""
