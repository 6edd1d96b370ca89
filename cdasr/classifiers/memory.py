"""Encoder states that are kept, so that no system of a comparison encodes the same audio again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor


class EncoderMemory:
    """States of whole batches by the bytes of their waveforms; the oldest go where they exceed `gigabytes`."""

    def __init__(self, gigabytes: float):
        self.most, self.held, self.hits = int(gigabytes * 1e9), 0, 0
        self.states: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, waves: Tensor, lengths: Tensor, encode: Callable[[], Tensor]) -> Tensor:
        """The states of `waves` (B, T) with `lengths` (B,), computed by `encode` where they are not known."""
        key = hashlib.sha256(waves.cpu().numpy().tobytes() + lengths.cpu().numpy().tobytes()).digest()
        if key in self.states:
            self.hits += 1
            return self.states[key].to(waves.device)
        found = encode()
        self.states[key] = found.cpu()
        self.held += size_of(found)
        while self.held > self.most and self.states:
            self.held -= size_of(self.states.popitem(last=False)[1])
        return found


class Remembers:
    """What a recogniser with a slow encoder inherits, to keep what it has encoded while it is asked to."""

    memory: EncoderMemory | None = None

    @contextmanager
    def remembering(self, gigabytes: float) -> Iterator[None]:
        """While this is open, audio that has been encoded already is not encoded again."""
        before, self.memory = self.memory, EncoderMemory(gigabytes)
        try:
            yield
        finally:
            self.memory = before

    def remembered(self, waves: Tensor, lengths: Tensor, encode: Callable[[], Tensor]) -> Tensor:
        """What `encode` makes of `waves` (B, T) with `lengths` (B,), from memory where that is open and has it.

        Waveforms that ask for a gradient are always encoded.
        """
        if self.memory is None or waves.requires_grad:
            return encode()
        return self.memory.get(waves, lengths, encode)


def size_of(states: Tensor) -> int:
    return states.numel() * states.element_size()
