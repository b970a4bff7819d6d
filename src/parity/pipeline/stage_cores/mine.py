"""2. Queries → ranking of the training rows → negatives; or negatives from another tool's file."""

from pathlib import Path

from parity.competition import ranking as rankings
from parity.competition.query import Position, QueryId
from parity.competition.ranking import Ranking
from parity.pipeline import dataset, encoder_loading, token_memory
from parity.pipeline.dataset import Dataset
from parity.pipeline.stage import StageContext, stage_context
from parity.retrieval import prompts
from parity.retrieval.engine.distributed import current_group
from parity.retrieval.retrieve import index, retrieve
from parity.run import digest, files
from parity.run.config import stage_settings
from parity.run.config.prompt import PromptConfig
from parity.run.errors import BadData
from parity.run.experiment import Run
from parity.run.progress import wrap
from parity.training import flagembedding, negatives
from parity.training.negatives import Negatives


def mine(run: Run, model: str = "", imported: Path | None = None) -> None:
    """Rank the corpus for every training row with a model, and choose negatives.

    The same negatives are also written as FlagEmbedding's training file, `flagembedding.jsonl`.

    Args:
        run: run at its round.
        model: reference of the model that ranks; empty is the previous round's best adapter, and
            the base model in round 0.
        imported: FlagEmbedding file to read the negatives from, instead of ranking.
    """
    if imported is not None and not imported.is_file():
        raise BadData(f"--import {imported}: no such file")
    workers = current_group()
    config = stage_settings.mining_config(run.config)
    loaded = None if imported else model
    with stage_context(run, "mine", model=loaded, main=workers.is_main) as work:
        data = dataset.load(config, run.workspace)
        if imported is not None:
            if workers.is_main:
                _import(config.prompt, data, work, imported)
            return
        assert work.model is not None
        encoder = encoder_loading.load_caching_encoder(
            config.encoder, run.workspace, work.model.folder, workers
        )
        shown = dataset.shown(data, config.prompt, data.train)
        depth = negatives.depth(config.mining, len(data.corpus))
        corpus = index(encoder, config.prompt, data.corpus)
        retrieval = retrieve(encoder, config.prompt, data.train, corpus, shown, k=depth)
        mined = negatives.mine(
            retrieval.ranking,
            data.qrels,
            data.corpus,
            config.mining,
            positives=data.positives,
            miner=encoder.digest(),
        )
        if workers.is_main:
            rankings.write(work.out("ranking.jsonl"), retrieval.ranking)
            print(f"train: {retrieval.queries.summary()}")
            for line in encoder_loading.convention_notes(config, run.workspace):
                print(wrap(line))
            bits = f" in {config.mining.quantize}" if config.mining.quantize else ""
            print(f"mined by {work.model.reference}{bits}, strategy {config.mining.strategy}")
            _write(config.prompt, data, work, mined, retrieval.ranking)
            work.facts |= {"speed": encoder.speed(), "took": encoder.embedding_stats()}
            token_memory.log_memory_of_lists(
                run.workspace.bytes_per_token,
                config,
                "adapter" if work.model.folder else "base",
                work.facts,
            )


def _write(
    prompt: PromptConfig,
    data: Dataset,
    work: StageContext,
    mined: Negatives,
    ranking: Ranking | None,
) -> None:
    negatives.write(work.out("negatives.jsonl"), mined, data.corpus)
    texts, passages = _texts(prompt, data)
    rows = flagembedding.export_rows(
        mined,
        data.qrels,
        texts=texts,
        passages=passages,
        instruction=prompt.instruction,
        ranking=ranking,
    )
    files.write_jsonl(work.out("flagembedding.jsonl"), rows)
    diversity = negatives.diversity(mined).text
    work.facts = {"miner": mined.miner, "diversity": diversity}
    print(wrap(diversity))


def _import(prompt: PromptConfig, data: Dataset, work: StageContext, file: Path) -> None:
    texts, passages = _texts(prompt, data)
    read = flagembedding.import_rows(
        files.read_jsonl(file),
        data.qrels,
        texts=texts,
        passages=passages,
        instruction=prompt.instruction,
        miner=f"imported:{digest.of_file(file)}",
    )
    files.remove(work.folder / "ranking.jsonl")  # it is from an earlier mining
    print(f"imported from {file.name}: {read.dropped} negatives dropped as repeated or right")
    _write(prompt, data, work, read.negatives, None)


def _texts(prompt: PromptConfig, data: Dataset) -> tuple[dict[QueryId, str], dict[Position, str]]:
    return (
        {query.query_id: prompts.query_text(prompt, query) for query in data.train},
        {key: prompts.passage(prompt, text) for key, text in data.corpus.items()},
    )
