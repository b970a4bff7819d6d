"""The 39 entries of the list of pitfalls: what the tool does about each, and the tests."""

from dataclasses import dataclass
from typing import Literal

Answer = Literal["refused", "cannot happen", "reported", "out of scope"]
"""What the tool does about an entry, apart from naming the layer of a planted fault.

`refused`: the command stops with an error. `cannot happen`: the tool does not offer a way to do it.
`reported`: it is not a fault of one run, and it is printed where it matters.
"""


@dataclass(frozen=True, slots=True)
class Pitfall:
    """One entry of the list, or one of the further faults on the way to Kaggle.

    Attributes:
        summary: what went wrong, in a few words.
        answer: what the tool does.
        tests: FILE::TEST under tests/ of each test.
    """

    summary: str
    answer: Answer
    tests: tuple[str, ...] = ()


_EX, _SPLITS = "competition/test_few_shot.py", "competition/splits/test_split.py"
_DATASET, _PLAN = "pipeline/test_dataset.py", "pipeline/test_training_plan.py"
_AGAINST, _TRAIN, _MINE = (
    "pipeline/stage_cores/test_evaluate_against.py",
    "pipeline/stage_cores/test_train.py",
    "pipeline/stage_cores/test_mine.py",
)
_PLANTED, _RECONCILE = "pipeline/test_planted.py", "pipeline/stage_cores/test_reconcile.py"
_PROMPTS = "pipeline/test_planted_prompts.py"
_PROCESSES, _SETTINGS = "pipeline/test_processes.py", "pipeline/test_changed_settings.py"
_SCORED, _ROWS = "pipeline/test_evaluation_job.py", "pipeline/test_evaluation.py"
_ENCODER, _ADAPTER = "retrieval/test_encoder.py", "retrieval/models/test_adapter.py"
_BATCHES, _KERNEL, _MAIN = "training/test_batches.py", "deploy/kernel/test_main.py", "test_main.py"
_LINEAGE, _SCRIPT = "competition/test_lineage.py", "test_kernel_script.py"

ENTRIES: dict[str, Pitfall] = {
    "A1": Pitfall(
        "CV .47, LB .30: the split shows what the test hides",
        "reported",
        (
            f"{_SPLITS}::test_a1_the_unseen_share_is_the_configured_one",
            "pipeline/stage_cores/test_prepare.py::test_a1_the_unseen_share_is_printed_with_the_split",
        ),
    ),
    "A2": Pitfall(
        "CV up, LB not: only seen misconceptions improve",
        "reported",
        (f"{_TRAIN}::test_a2_the_best_epoch_is_chosen_by_the_projection",),
    ),
    "A3": Pitfall(
        "one split is not a resample of another",
        "reported",
        (
            f"{_SPLITS}::test_a3_only_questions_with_all_wrong_answers_labeled_are_valid"
            "_in_random_full",
            f"{_SPLITS}::test_a3_the_description_compares_both_sides",
        ),
    ),
    "A4": Pitfall(
        "noise read as progress",
        "reported",
        (
            f"{_AGAINST}::test_a4_the_better_of_two_runs_is_named",
            f"{_AGAINST}::test_b26_equal_weights_show_no_difference",
        ),
    ),
    "A5": Pitfall(
        "one text in both parts of the split",
        "cannot happen",
        (
            f"{_SPLITS}::test_a5_questions_of_one_text_stay_together_in_every_kind",
            f"{_ROWS}::test_a5_a_question_with_the_text_of_a_trained_one_counts_as_trained",
        ),
    ),
    "B6": Pitfall(
        "trained on one split, scored by another's files",
        "refused",
        (f"{_LINEAGE}::test_b6_training_on_one_split_and_scoring_another_is_refused",),
    ),
    "B7": Pitfall(
        "scored on rows it was trained on",
        "refused",
        (
            f"{_SCORED}::test_b7_a_score_on_rows_it_was_trained_on_is_refused",
            f"{_SCORED}::test_b7_an_accepted_score_is_marked_and_left_out_of_every_table",
        ),
    ),
    "B8": Pitfall(
        "a downloaded adapter of unknown lineage",
        "refused",
        (f"{_SCORED}::test_b8_unknown_lineage_counts_as_contaminated",),
    ),
    "B9": Pitfall(
        "the answer among the prompt's few-shot examples",
        "refused",
        (
            f"{_DATASET}::test_b9_a_pool_that_holds_a_valid_question_is_refused",
            f"{_EX}::test_b9_no_query_is_shown_its_own_question_or_an_equal_text",
        ),
    ),
    "B10": Pitfall(
        "hand-written few-shot examples from the validation set",
        "refused",
        (f"{_DATASET}::test_b10_two_examples_picked_by_hand_are_checked_too",),
    ),
    "B11": Pitfall(
        "a score over the first rows of the file",
        "refused",
        (
            f"{_PLANTED}::test_b11_a_score_over_part_of_the_data_is_refused",
            "competition/scoring/test_metrics.py::test_rows_must_be_exactly_the_labeled_ones",
        ),
    ),
    "B12": Pitfall(
        "MAP@100 under the key of 25",
        "cannot happen",
        ("competition/scoring/test_metrics.py::test_a_key_at_25_never_holds_a_deeper_score",),
    ),
    "C13": Pitfall(
        "examples switched on, and none in any prompt",
        "refused",
        (
            f"{_PLAN}::test_c13_examples_that_never_fit_stop_the_stage",
            f"{_PROMPTS}::test_c13_examples_that_no_query_carries_stop_the_score",
        ),
    ),
    "C14": Pitfall(
        "a backslash and an n instead of a newline",
        "refused",
        (
            f"{_PLANTED}::test_c14_a_backslash_n_of_two_characters_is_refused",
            f"{_PLAN}::test_c14_training_uses_the_texts_of_the_prompts_module",
        ),
    ),
    "C15": Pitfall(
        "trained with one template, scored with another",
        "refused",
        (
            f"{_KERNEL}::test_c15_a_changed_template_is_named",
            f"{_SETTINGS}::test_a_changed_setting_makes_stale_the_stages_that_use_it",
        ),
    ),
    "C16": Pitfall(
        "examples drawn again by each script",
        "cannot happen",
        (f"{_EX}::test_c16_the_same_run_under_another_hash_seed_shows_the_same",),
    ),
    "C17": Pitfall(
        "a stale few-shot example list for an unseen subject",
        "cannot happen",
        (f"{_DATASET}::test_c17_a_subject_missing_from_the_pool_gets_the_same_number_of_examples",),
    ),
    "C18": Pitfall(
        "three length limits in three scripts",
        "refused",
        (
            "retrieval/test_prompts.py::test_c15_another_template_or_length_has_another_digest",
            "retrieval/test_retrieve.py::test_c18_queries_cut_to_fit_are_counted",
        ),
    ),
    "C19": Pitfall(
        "equal texts, different tokens on the host",
        "refused",
        (
            f"{_KERNEL}::test_rows_without_digests_are_proven_by_their_layer",
            "pipeline/stage_cores/test_rehearse.py::test_c19_the_kernel_ranks_the_probe_as_eval_does",
        ),
    ),
    "C20": Pitfall(
        "special tokens added, their embeddings untrained",
        "refused",
        (
            f"{_ENCODER}::test_an_added_token_without_an_embedding_is_harmless_until_a_text_has_it",
            f"{_PLANTED}::test_c20_tokens_added_to_a_base_are_another_base",
        ),
    ),
    "D21": Pitfall(
        "an adapter merged into 4-bit weights",
        "refused",
        (f"{_KERNEL}::test_d25_another_base_than_the_adapters_is_named",),
    ),
    "D22": Pitfall(
        "an adapter that was not applied",
        "refused",
        (
            f"{_ADAPTER}::test_d22_an_adapter_with_no_matching_key_is_refused",
            "pipeline/test_reload_check.py::test_d22_an_adapter_that_changes_nothing_fails",
            f"{_RECONCILE}::test_d22_an_adapter_that_ran_otherwise_under_its_own_name_is_named",
        ),
    ),
    "D23": Pitfall(
        "an output head dropped and initialized at random",
        "refused",
        (f"{_ENCODER}::test_a_weight_missing_from_the_files_is_refused_not_drawn",),
    ),
    "D24": Pitfall(
        "epoch folders overwritten or swapped",
        "cannot happen",
        (
            f"{_TRAIN}::test_b24_another_config_moves_the_old_epochs",
            f"{_RECONCILE}::test_d24_an_epochs_adapter_in_place_of_anothers_is_named",
        ),
    ),
    "D25": Pitfall(
        "one base hard-coded",
        "refused",
        (
            f"{_ADAPTER}::test_d25_another_base_is_refused",
            f"{_PROMPTS}::test_d25_another_base_stops_the_score",
        ),
    ),
    "D26": Pitfall(
        "two trainings with equal scores to the last digit",
        "reported",
        (
            "analysis/compare/test_layer_diffs.py"
            "::test_d26_two_adapters_with_exactly_the_same_score_are_flagged",
        ),
    ),
    "D27": Pitfall(
        "scored on quantized weights",
        "refused",
        (f"{_SCORED}::test_a_score_that_differs_from_training_is_refused",),
    ),
    "E28": Pitfall(
        "=False that means true",
        "cannot happen",
        (
            f"{_MAIN}::test_e28_a_switch_is_true_or_false_and_nothing_else",
            f"{_MAIN}::test_e28_unknown_words_are_refused",
        ),
    ),
    "E29": Pitfall(
        "a default changed under recorded commands",
        "reported",
        (f"{_TRAIN}::test_e29_the_resolved_config_is_stored_with_the_adapter_without_paths",),
    ),
    "E30": Pitfall(
        "three spellings of one flag",
        "cannot happen",
        (f"{_MAIN}::test_e30_a_flag_has_one_spelling",),
    ),
    "E31": Pitfall(
        "a breakpoint left before training",
        "cannot happen",
        ("test_pitfalls.py::test_e31_the_code_has_no_breakpoint",),
    ),
    "F32": Pitfall(
        "false negatives within a batch",
        "cannot happen",
        (
            f"{_BATCHES}::test_each_passage_occurs_once_and_only_false_negatives_are_masked",
            f"{_TRAIN}::test_f32_the_content_of_each_epoch_is_printed_before_the_first_step",
        ),
    ),
    "F33": Pitfall(
        "mining that depends on the hash seed",
        "cannot happen",
        (
            f"{_MINE}::test_f33_prepare_and_mine_write_the_same_bytes_under_another_hash_seed",
            f"{_PLANTED}::test_f33_the_order_of_the_corpus_file_changes_nothing_that_is_read",
            f"{_KERNEL}::test_a_corpus_in_another_order_is_the_same",
            f"{_PROMPTS}::test_f33_embeddings_in_another_order_than_the_corpus_stop_the_evaluation",
        ),
    ),
    "F34": Pitfall(
        "names for ids",
        "cannot happen",
        (
            f"{_MINE}::test_f34_of_two_ids_with_the_same_text_the_smaller_is_imported",
            "retrieval/test_retrieve.py"
            "::test_f34_of_two_ids_with_one_sentence_the_smaller_comes_first",
        ),
    ),
    "F35": Pitfall(
        "a shuffle that seems to matter",
        "cannot happen",
        (
            f"{_BATCHES}::test_planning_an_epoch_twice_gives_the_same_batches_in_any_order_of_queries",
        ),
    ),
    "F36": Pitfall(
        "a loss read as a score",
        "cannot happen",
        (f"{_PLANTED}::test_f36_no_loss_is_evidence_or_score",),
    ),
    "F37": Pitfall("an untuned reranker lowers MAP: this project has no reranker", "out of scope"),
    "G38": Pitfall(
        "two processes, rows in another order",
        "refused",
        (
            f"{_PROCESSES}::test_g38_two_processes_score_and_predict_the_bytes_of_one",
            "competition/test_submission.py::test_g38_rows_other_than_the_samples_are_named",
        ),
    ),
    "G39": Pitfall(
        "one rank scores while the others wait",
        "cannot happen",
        (f"{_PROCESSES}::test_g38_two_processes_score_and_predict_the_bytes_of_one",),
    ),
}
FURTHER: dict[str, Pitfall] = {
    "truncated submission": Pitfall(
        "a truncated submission",
        "refused",
        ("competition/test_submission.py::test_g38_rows_other_than_the_samples_are_named",),
    ),
    "too few ids a row": Pitfall(
        "rows of fewer than 25 ids",
        "refused",
        ("competition/test_submission.py::test_a_row_without_25_distinct_ids_is_named",),
    ),
    "wheel shadowing": Pitfall(
        "a package of the image instead of the wheel",
        "refused",
        (
            "deploy/kernel/test_environment_check.py::test_a_wrong_version_or_a_missing_requirement_is_named",
        ),
    ),
    "kernel version mix-up": Pitfall(
        "another version's output or weights",
        "refused",
        (
            f"{_KERNEL}::test_another_adapter_with_its_own_record_is_named_as_a_layer",
            "deploy/kaggle_api/test_follow.py::test_each_version_has_its_own_status",
        ),
    ),
    "image package drift": Pitfall(
        "Kaggle's image has changed",
        "refused",
        ("deploy/kernel/test_environment_check.py::test_another_image_is_refused_in_one_line",),
    ),
    "old dataset version mounted": Pitfall(
        "an older dataset is attached",
        "refused",
        (
            f"{_SCRIPT}::test_a_wheelhouse_of_another_bundle_is_named",
            f"{_KERNEL}::test_another_corpus_is_named",
            f"{_PROMPTS}::test_an_older_version_of_the_data_stops_every_stage",
        ),
    ),
}
"""Faults on the way to Kaggle that are not in the list."""
