"""2. Queries → ranking of the training rows → negatives; or negatives from another tool's file."""

from pathlib import Path

from parity.competition import ranking as rankings
from parity.competition.query import MisconceptionId, QueryId
from parity.competition.ranking import Ranking
from parity.pipeline import dataset, encoder_loading
from parity.pipeline.command_cores import local_plan
from parity.pipeline.dataset import Dataset
from parity.pipeline.stage import StageContext, stage_context
from parity.retrieval import prompts
from parity.retrieval.engine.distributed import launched
from parity.retrieval.retrieve import index, retrieve
from parity.run import digest, files
from parity.run.errors import BadData
from parity.run.experiment import Run
from parity.run.progress import folded
from parity.training import flagembedding, negatives
from parity.training.negatives import Negatives


def mine(run: Run, imported: Path | None = None) -> None:
    """Rank the corpus for every train row, with the round's miner, and choose negatives.

    The same negatives are also written as FlagEmbedding's training file, `flagembedding.jsonl`.

    Args:
        run: the run at its round.
        imported: take the negatives from this FlagEmbedding file; nothing is ranked.
    """
    if imported is not None and not imported.is_file():
        raise BadData(f"--import {imported}: no such file")
    workers = launched()
    with stage_context(run, "mine", main=workers.main) as work:
        known = dataset.load(run)
        if imported is not None:
            if workers.main:
                _import(run, known, work, imported)
            return
        config, how = run.config, encoder_loading.mining(run)
        encoder = encoder_loading.keeping(how, encoder_loading.parent(run), workers)
        shown = dataset.shown(known, config.prompt, known.train)
        depth = negatives.depth(config.mining, len(known.corpus))
        corpus = index(encoder, config.prompt, known.corpus)
        found = retrieve(encoder, config.prompt, known.train, corpus, shown, k=depth)
        mined = negatives.mine(
            found.ranking,
            known.qrels,
            known.corpus,
            config.mining,
            positives=known.positives,
            miner=encoder.digest(),
        )
        if workers.main:
            rankings.write(work.out("ranking.jsonl"), found.ranking)
            print(f"train: {found.asked.summary()}")
            who = f"the adapter of round {run.round - 1}" if run.round else "the bare base"
            bits = f" in {config.mining.quantize}" if config.mining.quantize else ""
            print(f"mined by {who}{bits}, strategy {config.mining.strategy}")
            _write(run, known, work, mined, found.ranking)
            work.facts |= {"speed": encoder.speed(), "took": encoder.took()}
            local_plan.note_lists(how, "adapter" if run.round else "base", work.facts)


def _write(
    run: Run, known: Dataset, work: StageContext, mined: Negatives, ranking: Ranking | None
) -> None:
    negatives.write(work.out("negatives.jsonl"), mined)
    texts, passages = _texts(run, known)
    rows = flagembedding.export_rows(
        mined,
        known.qrels,
        texts=texts,
        passages=passages,
        instruction=run.config.prompt.instruction,
        ranking=ranking,
    )
    files.write_jsonl(work.out("flagembedding.jsonl"), rows)
    diversity = negatives.diversity(mined).text
    work.facts = {"miner": mined.miner, "diversity": diversity}
    print(folded(diversity))


def _import(run: Run, known: Dataset, work: StageContext, file: Path) -> None:
    texts, passages = _texts(run, known)
    read = flagembedding.import_rows(
        files.read_jsonl(file),
        known.qrels,
        texts=texts,
        passages=passages,
        instruction=run.config.prompt.instruction,
        miner=f"imported:{digest.of_file(file)}",
    )
    files.remove(work.folder / "ranking.jsonl")  # of an earlier mining; these come from elsewhere
    print(f"imported from {file.name}: {read.dropped} negatives dropped as repeated or right")
    _write(run, known, work, read.negatives, None)


def _texts(run: Run, known: Dataset) -> tuple[dict[QueryId, str], dict[MisconceptionId, str]]:
    config = run.config.prompt
    return (
        {query.query_id: prompts.bare(config, query) for query in known.train},
        {key: prompts.passage(config, text) for key, text in known.corpus.items()},
    )
