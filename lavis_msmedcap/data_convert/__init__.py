"""Datasets written anew: as shards in the WebDataset convention, and as LAVIS' annotation files.

records ──plan──▶ shards, the same ones for the same records, settings and seed
        ──images─▶ the bytes to store: a plain file's own, anything else decoded
        ──shards / lavis_json──▶ files, each of them whole or not there
        ──check──▶ a few of them read back and compared
"""
