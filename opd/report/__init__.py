"""`opd report`: one self-contained HTML file of one run or several, made from the files that the runs wrote."""
