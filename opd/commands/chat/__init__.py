"""`opd sample` and `opd chat`: models that answer, side by side."""
