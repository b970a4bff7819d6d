"""The epochs that a scored model was chosen among, with the score of each row."""

from parity.competition import ranking as rankings
from parity.competition.query import QueryId
from parity.competition.scoring import metrics
from parity.pipeline import model_reference
from parity.pipeline.dataset import Dataset
from parity.pipeline.model_reference import Model
from parity.run import manifest as manifests
from parity.run.config import stage_settings
from parity.run.experiment import Run


def candidates(run: Run, model: Model, data: Dataset) -> list[dict[QueryId, float]]:
    """Return the row scores of all epochs of a model's training; empty if there was no choice.

    Epochs that training scored under other settings or on other rows are not comparable, and none
    is returned.

    Args:
        run: run at the model's round, with the settings of the evaluation.
        model: scored model.
        data: dataset whose validation set holds the scored rows.
    """
    folder = run.workspace.stage("train", model.round)
    trained = manifests.read(folder) if model.trained else None
    settings = stage_settings.settings_digest(run.config)
    if trained is None or trained.facts["scored_with"] != settings:
        return []
    scored = []
    for number in model_reference.epochs_of(run.workspace, model.round):
        path = folder / f"ranking-{number}.jsonl"
        if path.is_file():
            ranking = rankings.read(path)
            if set(ranking.query_ids) == set(data.valid_qrels):
                scored.append(metrics.row_scores(ranking, data.valid_qrels, data.metric))
    return scored
