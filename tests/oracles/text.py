"""Hashed n-grams of characters, counted one by one."""

import zlib


def hashed_ngrams(text, buckets, sizes):
    words = text.lower().split()
    counts = [0] * buckets
    if not words:
        return counts
    padded = " " + " ".join(words) + " "
    for size in sizes:
        for start in range(len(padded) - size + 1):
            ngram = padded[start : start + size]
            counts[zlib.crc32(ngram.encode("utf-32-le")) % buckets] += 1
    return [min(count, 255) for count in counts]
