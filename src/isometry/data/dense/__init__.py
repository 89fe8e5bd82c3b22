"""Images with boxes or masks: ``sources`` finds them, ``batches`` reads them.

DataConfig ─► find_dense_sources ─► DenseSources ─► dense_loaders (with the network's ImageSpec) ─► DenseBatch
"""
