"""The 39 entries of the list of pitfalls: what each is here, and the tests that show it."""

from dataclasses import dataclass
from typing import Literal

Answer = Literal["refused", "cannot happen", "told", "out of scope"]
"""What the tool does about an entry, beside naming the layer from evidence where that is planted.

`refused`: the command stops and says why. `cannot happen`: there is no way to do it. `told`: it is
no fault of one run, and is printed where it matters.
"""


@dataclass(frozen=True, slots=True)
class Pitfall:
    """One entry of the list, or of the further faults on the way to Kaggle.

    Attributes:
        says: what went wrong, in a few words.
        answer: what the tool does.
        tests: that show it, FILE::TEST under tests/.
    """

    says: str
    answer: Answer
    tests: tuple[str, ...] = ()


_EX, _SPLITS = "competition/test_few_shot.py", "competition/splits/test_split.py"
_NOUNS, _COURSE = "pipeline/test_dataset.py", "pipeline/test_training_plan.py"
_EVAL, _TRAIN, _MINE = (
    "pipeline/stage_cores/test_evaluate.py",
    "pipeline/stage_cores/test_train.py",
    "pipeline/stage_cores/test_mine.py",
)
_PLANTED, _RECONCILE = "pipeline/test_planted.py", "pipeline/stage_cores/test_reconcile.py"
_PROMPTS = "pipeline/test_planted_prompts.py"
_PROCESSES, _GRAPH = "pipeline/test_processes.py", "pipeline/test_dag.py"
_ENCODER, _ADAPTER = "retrieval/test_encoder.py", "retrieval/models/test_adapter.py"
_BATCHES, _KERNEL, _MAIN = "training/test_batches.py", "deploy/kernel/test_main.py", "test_main.py"
_LINEAGE, _SCRIPT = "competition/test_lineage.py", "test_kernel_script.py"

ENTRIES: dict[str, Pitfall] = {
    "A1": Pitfall(
        "CV .47, LB .30: the split shows what the test hides",
        "told",
        (
            f"{_SPLITS}::test_a1_the_unseen_share_is_the_wanted_one",
            "pipeline/stage_cores/test_prepare.py::test_a1_the_unseen_share_is_printed_beside_the_split",
        ),
    ),
    "A2": Pitfall(
        "CV up, LB not: only seen misconceptions improve",
        "told",
        (f"{_TRAIN}::test_a2_the_best_epoch_is_chosen_by_the_projection",),
    ),
    "A3": Pitfall(
        "one split is no resample of another",
        "told",
        (
            f"{_SPLITS}::test_a3_only_questions_with_all_wrong_answers_labeled_are_valid"
            "_in_random_full",
            f"{_SPLITS}::test_a3_the_description_tells_both_sides_apart",
        ),
    ),
    "A4": Pitfall(
        "noise read as progress",
        "told",
        (
            f"{_EVAL}::test_a4_of_two_runs_the_better_one_is_named",
            f"{_EVAL}::test_b26_the_same_weights_against_themselves_show_no_difference",
        ),
    ),
    "A5": Pitfall(
        "one text on both sides of the split",
        "cannot happen",
        (
            f"{_SPLITS}::test_a5_questions_of_one_text_stay_together_in_every_kind",
            f"{_EVAL}::test_a5_a_question_with_the_text_of_a_trained_one_counts_as_trained",
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
            f"{_EVAL}::test_b7_a_score_on_rows_it_was_trained_on_is_refused",
            f"{_EVAL}::test_b7_an_accepted_score_is_marked_and_kept_out_of_every_table",
        ),
    ),
    "B8": Pitfall(
        "a downloaded adapter of unknown lineage",
        "refused",
        (f"{_EVAL}::test_b8_unknown_lineage_counts_as_contaminated",),
    ),
    "B9": Pitfall(
        "the answer among the prompt's few-shot examples",
        "refused",
        (
            f"{_NOUNS}::test_b9_a_pool_that_holds_a_valid_question_is_refused",
            f"{_EX}::test_b9_no_query_is_shown_its_own_question_or_an_equal_text",
        ),
    ),
    "B10": Pitfall(
        "hand-written few-shot examples from valid",
        "refused",
        (f"{_NOUNS}::test_b10_two_examples_picked_by_hand_are_held_to_the_same",),
    ),
    "B11": Pitfall(
        "a score over the head of the file",
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
            f"{_COURSE}::test_c13_examples_that_never_fit_stop_the_stage",
            f"{_PROMPTS}::test_c13_examples_switched_on_that_no_query_carries_stop_the_score",
        ),
    ),
    "C14": Pitfall(
        "a backslash and an n for a newline",
        "refused",
        (
            f"{_PLANTED}::test_c14_a_backslash_n_of_two_characters_is_refused",
            f"{_COURSE}::test_c14_training_asks_in_the_words_of_the_one_prompt",
        ),
    ),
    "C15": Pitfall(
        "trained with one template, scored with another",
        "refused",
        (
            f"{_KERNEL}::test_c15_a_changed_template_is_named",
            f"{_GRAPH}::test_a_changed_run_file_makes_stale_what_depends_on_it_and_all_after",
        ),
    ),
    "C16": Pitfall(
        "examples drawn anew by each script",
        "cannot happen",
        (f"{_EX}::test_c16_the_same_run_under_another_hash_seed_shows_the_same",),
    ),
    "C17": Pitfall(
        "a stale few-shot example list for an unseen subject",
        "cannot happen",
        (f"{_NOUNS}::test_c17_a_subject_that_the_pool_lacks_is_shown_what_others_are",),
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
        "equal texts, other tokens on the host",
        "refused",
        (
            f"{_KERNEL}::test_rows_without_digests_are_proven_by_their_layer",
            "pipeline/stage_cores/test_rehearse.py::test_c19_the_probe_is_ranked_there_as_here",
        ),
    ),
    "C20": Pitfall(
        "special tokens added, their embeddings untrained",
        "refused",
        (
            f"{_ENCODER}::test_tokens_without_an_embedding_are_refused",
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
        "an output head dropped and drawn at random",
        "refused",
        (f"{_ENCODER}::test_a_weight_missing_from_the_files_is_refused_not_drawn",),
    ),
    "D24": Pitfall(
        "epoch folders overwritten or swapped",
        "cannot happen",
        (
            f"{_TRAIN}::test_b24_another_config_sets_the_old_epochs_aside",
            f"{_RECONCILE}::test_d24_an_epochs_adapter_in_place_of_anothers_is_named",
        ),
    ),
    "D25": Pitfall(
        "one base fixed in the code",
        "refused",
        (
            f"{_ADAPTER}::test_d25_another_base_is_refused",
            f"{_PROMPTS}::test_d25_another_base_stops_the_score",
        ),
    ),
    "D26": Pitfall(
        "two trainings, one score to the last digit",
        "told",
        (
            "analysis/compare/test_layer_diffs.py"
            "::test_a_score_equal_to_the_last_digit_of_two_adapters_is_flagged",
        ),
    ),
    "D27": Pitfall(
        "scored on quantized weights",
        "refused",
        (f"{_EVAL}::test_another_score_than_the_one_made_in_training_is_refused",),
    ),
    "E28": Pitfall(
        "=False that means true",
        "cannot happen",
        (
            f"{_MAIN}::test_e28_a_switch_is_true_or_false_and_nothing_else",
            f"{_MAIN}::test_e28_words_that_nobody_knows_are_refused",
        ),
    ),
    "E29": Pitfall(
        "a default changed under recorded commands",
        "told",
        (f"{_TRAIN}::test_e29_the_resolved_config_lies_beside_the_adapter_without_any_path",),
    ),
    "E30": Pitfall(
        "three spellings of one flag",
        "cannot happen",
        (f"{_MAIN}::test_e30_a_flag_has_one_spelling",),
    ),
    "E31": Pitfall(
        "a breakpoint left before training",
        "cannot happen",
        ("test_pitfalls.py::test_e31_no_breakpoint_is_left_in_the_code",),
    ),
    "F32": Pitfall(
        "false negatives within a batch",
        "cannot happen",
        (
            f"{_BATCHES}::test_each_passage_comes_once_and_just_the_false_negatives_are_masked",
            f"{_TRAIN}::test_f32_what_each_epoch_is_made_of_is_told_before_the_first_step",
        ),
    ),
    "F33": Pitfall(
        "mining that depends on the hash seed",
        "cannot happen",
        (
            f"{_MINE}::test_f33_prepare_and_mine_write_the_same_bytes_under_another_hash_seed",
            f"{_PLANTED}::test_f33_the_order_of_the_corpus_file_changes_nothing_that_is_read",
            f"{_KERNEL}::test_a_corpus_in_another_order_is_the_same",
            f"{_PROMPTS}::test_f33_a_corpus_in_another_order_than_its_ids_stops_the_search",
        ),
    ),
    "F34": Pitfall(
        "names for ids",
        "cannot happen",
        (
            f"{_MINE}::test_f34_of_two_ids_with_one_sentence_the_smaller_is_taken_back",
            "retrieval/test_retrieve.py"
            "::test_f34_of_two_ids_with_one_sentence_the_smaller_comes_first",
        ),
    ),
    "F35": Pitfall(
        "a shuffle that seems to matter",
        "cannot happen",
        (f"{_BATCHES}::test_an_epoch_planned_again_is_the_same_whatever_the_order_of_queries",),
    ),
    "F36": Pitfall(
        "a loss read as a score",
        "cannot happen",
        (f"{_PLANTED}::test_f36_no_loss_is_evidence_or_score",),
    ),
    "F37": Pitfall("an untuned reranker lowers MAP: there is no reranker here", "out of scope"),
    "G38": Pitfall(
        "two processes, rows in another order",
        "refused",
        (
            f"{_PROCESSES}::test_g38_two_processes_score_and_predict_the_bytes_of_one",
            "competition/eedi/test_submission.py::test_g38_rows_other_than_the_samples_are_named",
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
        "a submission that is cut short",
        "refused",
        ("competition/eedi/test_submission.py::test_g38_rows_other_than_the_samples_are_named",),
    ),
    "too few ids a row": Pitfall(
        "rows of fewer than 25 ids",
        "refused",
        ("competition/eedi/test_submission.py::test_a_row_without_25_distinct_known_ids_is_named",),
    ),
    "wheel shadowing": Pitfall(
        "a package of the image in place of the wheel",
        "refused",
        ("deploy/kernel/test_environment_check.py::test_what_is_not_met_is_named",),
    ),
    "kernel version mix-up": Pitfall(
        "another version's output or weights",
        "refused",
        (
            f"{_KERNEL}::test_another_adapter_with_a_record_of_its_own_is_named_as_a_layer",
            "deploy/kaggle_api/test_follow.py::test_it_is_the_versions_own_end",
        ),
    ),
    "image package drift": Pitfall(
        "Kaggle's image is another by now",
        "refused",
        ("deploy/kernel/test_environment_check.py::test_another_image_is_refused_in_one_line",),
    ),
    "old dataset version mounted": Pitfall(
        "an older dataset is attached",
        "refused",
        (
            f"{_SCRIPT}::test_another_wheelhouse_than_the_bundles_is_named",
            f"{_KERNEL}::test_another_corpus_is_named",
            f"{_PROMPTS}::test_an_older_version_of_the_data_stops_every_stage",
        ),
    ),
}
"""Faults of the way to Kaggle, which the list has no number for."""
