#!/usr/bin/env python3
"""One peer's near-dedup of a file of chats, as its documentation has it: `curate_peer.py TOOL CHATS`; prints the ids that stay.

Run in an environment of the peers' own (datatrove 0.10.1, datasketch 2.0.0, rensa 0.5.0). All see the same text (turns but
the system's, joined by newlines) and word 5-grams. `floor-HASH` only reads, parses and
hashes; `grams` decontaminates.
"""

import re
import sys
import tempfile

WORD = re.compile(r"\w+")


def chats(path):
    import orjson

    with open(path, "rb") as file:
        for line in file:
            row = orjson.loads(line)
            yield row["id"], "\n".join([m["content"] for m in row["messages"] if m["role"] != "system"])


def shingles(text):
    words = WORD.findall(text.lower())
    return {" ".join(words[i:i + 5]) for i in range(max(1, len(words) - 4))}


def floor(path, hashed):
    seen = set()
    for id, text in chats(path):
        key = hashed(text.encode())
        if key not in seen:
            seen.add(key)
            yield id


def floor_xxh3_128(path):
    import xxhash

    return floor(path, xxhash.xxh3_128_digest)


def floor_sha256(path):
    import hashlib

    return floor(path, lambda data: hashlib.sha256(data).digest())


def grams(path):
    """What does not share an 8-gram of words with evals.jsonl, which lies beside."""
    import orjson

    def of(text):
        words = WORD.findall(text.lower())
        return {tuple(words[i:i + 8]) for i in range(len(words) - 7)}

    with open(path.rpartition("/")[0] + "/evals.jsonl", "rb") as file:
        wanted = set().union(*(of(orjson.loads(line)["prompt"]) for line in file))
    with open(path, "rb") as file:
        for line in file:
            row = orjson.loads(line)
            if not any(of(m["content"]) & wanted for m in row["messages"] if m["role"] == "user"):
                yield row["id"]


def rensa(path):
    from rensa import RMinHash, RMinHashDeduplicator

    kept = RMinHashDeduplicator(threshold=0.7, num_perm=128, use_lsh=True, num_bands=16)
    for id, text in chats(path):
        minhash = RMinHash(num_perm=128, seed=42)
        minhash.update(list(shingles(text)))
        if kept.add(id, minhash):
            yield id


def datasketch(path):
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(threshold=0.7, num_perm=128)
    for id, text in chats(path):
        minhash = MinHash(num_perm=128)
        minhash.update_batch([gram.encode() for gram in shingles(text)])
        if not lsh.query(minhash):
            yield id
        lsh.insert(id, minhash)


def datatrove(path):
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    config = MinhashConfig()  # 14 x 8, word 5-grams

    def read(data, rank=0, world_size=1):
        for id, text in chats(path):
            yield Document(text=text, id=id)

    ids = []

    def write(data, rank=0, world_size=1):
        for document in data:
            ids.append(document.id)
            yield document

    with tempfile.TemporaryDirectory() as folder:
        steps = ([read, MinhashDedupSignature(output_folder=f"{folder}/signatures", config=config)],
                 [MinhashDedupBuckets(input_folder=f"{folder}/signatures", output_folder=f"{folder}/buckets", config=config)],
                 [MinhashDedupCluster(input_folder=f"{folder}/buckets", output_folder=f"{folder}/clusters", config=config)],
                 [read, MinhashDedupFilter(input_folder=f"{folder}/clusters"), write])
        for i, pipeline in enumerate(steps):
            LocalPipelineExecutor(pipeline=pipeline, tasks=config.num_buckets if i == 1 else 1, workers=1, skip_completed=False,
                                  logging_dir=f"{folder}/log{i}").run()
    yield from ids


def main():
    for id in globals()[sys.argv[1].replace("-", "_")](sys.argv[2]):
        print(id)


if __name__ == "__main__":
    main()
