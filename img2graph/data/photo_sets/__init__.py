"""Published sets of photographs, each read as its source lays it out.

Every module has functions `(folder, part) -> Photos`; `data.photos` names them.
"""
