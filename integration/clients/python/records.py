"""What records and batches are made of, where no client library would make them so."""
import struct


def crc32c(data, table=[]):
    if not table:
        for byte in range(256):
            for _ in range(8):
                byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
            table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def varint(number):
    """A number that is not negative, in zigzag."""
    number, out = number << 1, b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def sealed(base, rest):
    """A batch of what its checksum covers."""
    return struct.pack(">qiibI", base, 9 + len(rest), 0, 2, crc32c(rest)) + rest
