#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A well-behaved program on NVIDIA's cuda-python: neighbour.py PIECE PIECES

It needs PIECES times PIECE bytes of GPU memory, and takes them one after the other. Into each it writes a pattern and reads it back. It
writes "holds BYTES" after each and waits for a line on its standard input before the next; in the end "finished BYTES", or
"failed ERROR BYTES". Nothing in it knows of softslice."""
import sys

from cuda.bindings import driver

SAMPLE = 1 << 20


class Refused(Exception):
    """A call that the driver refused; its text is the error's name."""


def call(function, *arguments):
    """What the function returns after its error code, or Refused."""
    error, *results = function(*arguments)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise Refused(error.name)
    return results[0] if results else None


def take(piece, number):
    """Allocate a piece, fill the start and the end of it and compare."""
    memory = int(call(driver.cuMemAlloc, piece))
    for address in (memory, memory + piece - SAMPLE):
        pattern = bytes([number + 1]) * SAMPLE
        back = bytearray(SAMPLE)
        call(driver.cuMemcpyHtoD, address, pattern, SAMPLE)
        call(driver.cuMemcpyDtoH, back, address, SAMPLE)
        if back != pattern:
            sys.exit("neighbour: the GPU gave back other bytes than were written")


def main():
    piece, pieces = int(sys.argv[1]), int(sys.argv[2])
    held = 0
    try:
        call(driver.cuInit, 0)
        call(driver.cuCtxSetCurrent, call(driver.cuDevicePrimaryCtxRetain, call(driver.cuDeviceGet, 0)))
        for number in range(pieces):
            take(piece, number)
            held += piece
            print("holds", held, flush=True)
            sys.stdin.readline()
    except Refused as refused:
        print("failed", refused, held, flush=True)
        return 1
    print("finished", held, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
