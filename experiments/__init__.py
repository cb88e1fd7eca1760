"""Questions put to lr_nn, one file each: `python -m experiments NAME`."""
