"""The systems of the literature on a user's cells: sentences, gene texts, fusion, and language models that re-rank.

    embed               cells -> vectors by cell sentences, gene texts or both         (ic.tl.embed(encoder=...))
    neighbours          vectors -> labels of the nearest cells; agreement of clusters with labels
    language            a generative language model: a local folder or an OpenAI-compatible endpoint
    rerank              the top three types of the neighbours, and the marker quiz, put to a language model
    cell_sentence_lm    a causal model fine-tuned on cell sentences: cell -> type, type -> cell
    trained             saved fusion and gene-reader classifiers

They are trained and compared in `train.literature`.
"""
