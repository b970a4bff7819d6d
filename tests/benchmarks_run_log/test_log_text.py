"""The description of the diary's log, and of other logs."""

import csv
from pathlib import Path

import pytest

from benchmarks.run_log import log, log_text

SEED = Path(__file__).parents[3] / "shared" / "seed" / "runs.csv"
needs_seed = pytest.mark.skipif(not SEED.is_file(), reason="the seed data is missing")

LINES = (
    "178 rows; 38 with LB, 35 with CV too, 32 usable",
    # v1 → v2
    "bge-icl-v2-on-v1-POLLUTED: epoch 4 .6766/.9431 +0.206 over clean scores",
    "67.5 % of its questions trained on",
    "bge-icl-v4-on-v3-POLLUTED: epoch 1 .5119/.9050 +0.063, epoch 2 .6285/.9270 +0.153",
    "sfr-lora-POLLUTED: CV .8740 +0.521 over its LB",
    # weights that are not the trained ones
    "qwen14b-fixemb-adapter-NOT-APPLIED: .0021, the base model's .0019",
    "qwen14b-oldsaver-merge-in-4bit: .0338, its variant's .4564, adapter merged into 4-bit",
    "pipe-iter0-rerank-merged-NO-HEAD: .1489, its variant's .5486",
    "rerank-qwen14b-4ep-2processes: .3210, its variant's .6005",
    # .47 and .30
    "bge-icl-v2-train e5: CV .4716, LB .304, 18 standard errors: not sampling",
    "CV minus LB: +0.009 on average of 9 untuned pairs, +0.128 on average of 23 tuned pairs",
    "the cause is the seen share: train has the misconceptions of 63 % of v2's rows",
    "LB would be .317; it is .304",
    "bge-icl v2 round 0 .471-.472 .304 .317 .631 .195 4 of 4",
    "bge-icl v1 round 0 .469-.472 .308 .306 .575 .219 2 of 2",
    "bge-icl cv round 1 .448-.509 .365-.388 .306 .542 .315 0 of 4",
    "qwen14b cv round 0 .485-.503 .422 .306 .532 .385 0 of 2",
    # noise
    "one standard error: 0.0136 on 864 rows (0.4 a row)",
    "LB .316-.321 (CV .429-.473, 4 pairs)",
    "8 of icl-lora at epoch 1: CV .440-.462, 25 of 28 pairs within noise",
    "bge-icl-v3-train e1 → bge-icl-v3-train e3: CV +0.0434, LB +0.002",
    "scored in training and later quantized: -0.0151 to -0.0137",
    "qwen14b-fixemb-merged e2 = qwen14b-oldsaver-merged e2 (.45625847627561184)",
)


@needs_seed
def test_the_diary_s_log_is_described_on_one_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SEED.parent)  # the first line has the path, so a deep checkout folds it
    assert log_text.main([SEED.name]) == 0
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert len(lines) <= 62
    assert max(map(len, lines)) <= 80
    flat = " ".join(output.split())
    assert [part for part in LINES if part not in flat] == []
    rows = log.read_log(SEED)
    assert len(list(log.excess(rows))) == 4
    assert len(list(log.broken(rows))) == 4


@needs_seed
def test_every_number_comes_from_the_table(tmp_path: Path) -> None:
    """With other names and numbers, the old ones do not appear."""
    with SEED.open(encoding="utf-8", newline="") as seed:
        rows = list(csv.DictReader(seed))
    for row in rows:
        row["run"] = row["run"].replace("bge-icl-v2", "bge-icl-w2").replace("qwen14b", "qwen9b")
        if row["cv_map25"]:
            row["cv_map25"] = repr(float(row["cv_map25"]) * 0.9)
        if row["lb_public"]:
            row["lb_public"] = repr(float(row["lb_public"]) * 0.9)
    path = tmp_path / "other.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    text = " ".join(log_text.text(log.read_log(path), "other").split())
    for old in ("bge-icl-v2", "qwen14b", ".6766", ".4716", ".0338", ".316-.321", ".4563"):
        assert old not in text
    assert "bge-icl-w2-on-v1-POLLUTED: epoch 4 .6089/.9431 +0.186" in text


def test_a_log_without_faults_has_an_empty_section(tmp_path: Path) -> None:
    path = tmp_path / "small.csv"
    path.write_text(
        "run,split,round,epoch,adapter,quantised,cv_map25,lb_public\n"
        "a-b,v3,0,1,true,false,0.40,\na-b,v3,0,2,true,false,0.44,\n"
    )
    text = log_text.text(log.read_log(path), "small")
    assert text.splitlines()[:3] == [
        "small: 2 rows; 0 with LB, 0 with CV too, 0 usable",
        "1. Scores that are not a CV",
        "  no faults by mark, note or score",
    ]
    assert "no pair of CV and public score" in text


def test_a_missing_log_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert log_text.main([str(tmp_path / "runs.csv")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert log_text.main([]) == 2
