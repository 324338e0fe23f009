"""Several servers as one engine: who owns which shard, and calls that are passed on to the owner.

`ClusterEngine` is an `Engine`. It has a `LocalEngine` for each shard that this server owns, and a connection
to each server that owns others:

    operation ─▶ ClusterEngine ─▶ Shard ─▶ LocalEngine                   this server owns the shard
                                    └────▶ Peer ═▶ Serving ─▶ LocalEngine    another one does

Verbs that touch several shards are divided, and their answers are joined. `Keeper` decides, by what it sees
in the database, which shards this server takes and hands over.
"""
