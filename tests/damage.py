"""Damage to `.npz` files that shows late."""

import zipfile


def unknown_compression(path):
  """Every file inside says that it is packed in a way that nobody knows."""
  data = bytearray(path.read_bytes())
  place = data.find(b'PK\x01\x02')
  while place >= 0:
    data[place + 10 : place + 12] = b'\x63\x00'
    place = data.find(b'PK\x01\x02', place + 1)
  path.write_bytes(bytes(data))


def open_header(path):
  """The header of every array inside ends before its brackets close."""
  with zipfile.ZipFile(path) as file:
    names = file.namelist()
  header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,\n"
  with zipfile.ZipFile(path, 'w') as file:
    for name in names:
      size = len(header).to_bytes(2, 'little')
      file.writestr(name, b'\x93NUMPY\x01\x00' + size + header + bytes(24))


WAYS = (unknown_compression, open_header)
