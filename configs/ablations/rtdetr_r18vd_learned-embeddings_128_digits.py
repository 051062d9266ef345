"""Queries are learned embeddings that are tied to no box."""

_base_ = './rtdetr_r18vd_128_digits.py'

model = dict(bbox_head=dict(query_selector=dict(type='LearnedEmbeddings', learned_content=True)))
