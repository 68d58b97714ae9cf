"""How each kind of file becomes AnnData; `instructcell.cells.read` is the way in."""
