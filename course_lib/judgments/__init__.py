"""Chapter 08: scoring metrics against judgments, and training LPIPS on them."""

from course_lib.judgments.evaluation import METRICS, Evaluation, Metric, evaluate, l2, load, write_tables
from course_lib.judgments.learning import (
    MODES,
    Recipe,
    Trained,
    held_out_distances,
    load_metric,
    train_heads,
    train_lpips,
)
from course_lib.judgments.ranking import (
    CachedDifferences,
    Differences,
    Heads,
    NetworkRanking,
    Ranker,
    SigmoidRanking,
    cache_differences,
    channel_differences,
)
from course_lib.judgments.scores import (
    bootstrap_interval,
    human_ceiling,
    jnd_map,
    kendall,
    majority_ceiling,
    pearson,
    pearson_after_logistic,
    ranks,
    spearman,
    two_afc_agreement,
    two_afc_score,
)

__all__ = [
    "METRICS", "MODES", "CachedDifferences", "Differences", "Evaluation", "Heads", "Metric", "NetworkRanking", "Ranker",
    "Recipe", "SigmoidRanking", "Trained", "bootstrap_interval", "cache_differences", "channel_differences", "evaluate",
    "held_out_distances", "human_ceiling", "jnd_map", "kendall", "l2", "load", "load_metric", "majority_ceiling",
    "pearson", "pearson_after_logistic", "ranks", "spearman", "train_heads", "train_lpips", "two_afc_agreement",
    "two_afc_score", "write_tables",
]  # fmt: skip
